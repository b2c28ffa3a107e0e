"""`Places`: how many connections to one endpoint may be open at a time, and who waits for one.

A connection holds its place from before it is dialed until it is closed, idle or not. Append and pop of a deque are
atomic: no lock, hence nothing that a fork, a finalizer or a signal's handler could find held. A waiter that is woken
looks again, and the next connection that is put back or closed wakes the next one.
"""

from __future__ import annotations

import resource
from collections import deque
from collections.abc import Callable
from typing import Protocol

USUAL_MOST = 1000
SHARE = 2  # of the process's descriptors: one half, for one endpoint
LEAST = 4


Place = Callable[[], None]  # gives it back


class Waiter(Protocol):
    """Who waits for a place: a thread or a task. `is_woken`: it is no longer among those that wait."""

    is_woken: bool

    def wake(self) -> None: ...


class Places:
    """The places of one endpoint's connections."""

    __slots__ = ("_free", "most", "waiters")

    def __init__(self, most: int) -> None:
        self.most = most
        self.waiters: deque[Waiter] = deque()
        self._free = deque(range(most))

    @property
    def is_unused(self) -> bool:
        """Whether no connection is open and nobody waits."""
        return len(self._free) >= self.most and not self.waiters

    def take(self) -> Place | None:
        """Take a place, and return how to give it back; None when there is none."""
        try:
            self._free.pop()
        except IndexError:
            return None
        return self._give_back

    def wake_next(self) -> None:
        """Wake whoever waits first."""
        try:
            self.waiters.popleft().wake()
        except IndexError:
            pass

    def wake_all(self) -> None:
        """Wake all that wait."""
        while self.waiters:
            self.wake_next()

    def leave(self, waiter: Waiter) -> None:
        """Stop waiting; if it was just woken, the next one is."""
        try:
            self.waiters.remove(waiter)
        except ValueError:
            self.wake_next()

    def _give_back(self) -> None:
        self._free.append(0)
        if self.waiters:
            self.wake_next()


def usual_most() -> int:
    """Return how many connections an endpoint has where its LM does not say."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return USUAL_MOST
    return max(LEAST, min(USUAL_MOST, soft // SHARE))
