"""Let threads wait until a pool has changed: workers came or went, calls ended. Nothing waits here on a hot path."""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import inf
from time import monotonic

from ..errors import PoolClosed

LOOK_S = 0.01  # calls end without notice


class Changes:
    """The changes of one pool, as threads wait for them. `failure()` is why there will be no more of them, if so."""

    def __init__(self, pool: str, failure: Callable[[], PoolClosed | None]) -> None:
        self._pool = pool
        self._failure = failure
        self._changed = threading.Condition()

    def notify(self) -> None:
        """Wake those who wait."""
        with self._changed:
            self._changed.notify_all()

    def wait_until(self, is_done: Callable[[], bool], timeout: float | None) -> bool:
        """Block until `is_done()`; False if that took longer than `timeout`.

        Raises:
            PoolClosed: the engine has died.
        """
        deadline = inf if timeout is None else monotonic() + timeout
        while not is_done():
            if (failure := self._failure()) is not None:
                raise failure
            if monotonic() >= deadline:
                return False
            with self._changed:
                self._changed.wait(LOOK_S)
        return True

    def wait_or_raise(self, is_done: Callable[[], bool], timeout: float | None, what: str) -> None:
        """Block until `is_done()`.

        Raises:
            TimeoutError: the pool did not do what was asked within `timeout` seconds.
            PoolClosed: the engine has died.
        """
        if not self.wait_until(is_done, timeout):
            raise TimeoutError(f"Pool {self._pool!r} did not {what} within {timeout:g} s; it goes on.")
