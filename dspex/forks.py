"""Hold back forks of the host while a new descriptor could leak into a forked child.

A child must close what ties the host to its workers (lifelines, pipes), or it keeps them alive in its stead (C13). It
knows a descriptor once that is recorded; so a fork waits while one is made or closed. What is done meanwhile must not
block: the wait is bounded, since a fork that waits may hold what a finalizer in the other thread needs. Any thread.
Not covered: forks in C that run no at-fork handlers.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import AbstractContextManager

PATIENCE = 1.0  # seconds that a fork waits; what is done meanwhile takes about a millisecond


class Forks:
    """The forks of this process, by any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # the thread that holds them back may fork: a finalizer can run anywhere
        os.register_at_fork(before=self._wait, after_in_parent=self._go_on, after_in_child=self._begin)

    def held_back(self) -> AbstractContextManager[object]:
        """Run the block while no other thread forks.

        It gives the lock itself: no signal handler can raise between taking it and the block.
        """
        return self._lock

    def _wait(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._lock.acquire(timeout=max(0.0, deadline - time.monotonic()))
                return
            except BaseException:  # a signal handler raised; the interpreter would report it and fork all the same
                if time.monotonic() > deadline:
                    raise

    def _go_on(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:
            pass  # it was not free in time

    def _begin(self) -> None:
        self._lock = threading.RLock()  # another thread's, which is not here


_forks = Forks()
held_back = _forks.held_back
