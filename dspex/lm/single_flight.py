"""Single flight: of callers who ask the same thing at the same time one asks, the others wait (RULES I6).

A leader that is cancelled hands the lead to one of its followers. Threads and asyncio tasks share flights. The lock is
held for a few dictionary operations; a leader that leaves inside a finalizer (a generator that the collector closes)
never waits for it: it notes its leaving, and whoever holds the lock does the work after letting go.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
STALL_S = 1.0  # a stream whose reader lets a part lie for longer is not waited for: it may lie for ever


class FlightSeat(Generic[T]):
    """One caller's place in a flight. `leads`: do the work, then `land` or `leave`. Else wait for `outcome`.

    `thread` is where its caller waits; `held_since` tells since when the reader of a leader's stream has the next part.
    """

    __slots__ = ("_notify", "held_since", "key", "leads", "outcome", "thread")

    def __init__(self, key: bytes, leads: bool) -> None:
        self.key = key
        self.leads = leads
        self.outcome: T | None = None
        self.thread = threading.get_ident()
        self.held_since: float | None = None
        self._notify: Callable[[], None] | None = None

    @property
    def settled(self) -> bool:
        """Whether waiting is over: there is an outcome, or this caller leads now."""
        return self.leads or self.outcome is not None

    def hold(self) -> None:
        """The reader of the stream has a part, and comes back for the next one when it likes."""
        self.held_since = time.monotonic()

    def resume(self) -> None:
        """The reader came back."""
        self.held_since = None


class SingleFlight(Generic[T]):
    """The flights under way, by key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._followers: dict[bytes, deque[FlightSeat[T]]] = {}
        self._leaders: dict[bytes, FlightSeat[T]] = {}
        self._left: deque[FlightSeat[T]] = deque()

    def join(self, key: bytes) -> FlightSeat[T]:
        """Take a seat: the leader's if nobody asks this now."""
        with self._lock:
            followers = self._followers.get(key)
            seat = FlightSeat[T](key, leads=followers is None)
            if followers is None:
                self._followers[key] = deque()
                self._leaders[key] = seat
            else:
                followers.append(seat)
        self._tidy()
        return seat

    def watch(self, seat: FlightSeat[T], notify: Callable[[], None]) -> bool:
        """Have `notify` called once, from any thread, when the seat is settled; False if it is already."""
        with self._lock:
            waits = not seat.settled
            if waits:
                seat._notify = notify
        self._tidy()
        return waits

    def leads_here(self, seat: FlightSeat[T]) -> bool:
        """Return whether the leader needs the calling thread, which therefore must not wait for it."""
        leader = self._leaders.get(seat.key)
        return leader is not None and leader.thread == threading.get_ident()

    def is_stalled(self, seat: FlightSeat[T]) -> bool:
        """Return whether the leader's stream lies with its reader."""
        leader = self._leaders.get(seat.key)
        since = None if leader is None else leader.held_since
        return since is not None and time.monotonic() - since >= STALL_S

    def land(self, seat: FlightSeat[T], outcome: T) -> None:
        """The leader has the outcome, for everybody."""
        with self._lock:
            seat.outcome = outcome
            self._leaders.pop(seat.key, None)
            followers = self._followers.pop(seat.key, None) or ()
            for follower in followers:
                follower.outcome = outcome
            calls = [f._notify for f in followers if f._notify is not None]
        for notify in calls:
            notify()
        self._tidy()

    def leave(self, seat: FlightSeat[T]) -> None:
        """Give the seat up: a follower stops waiting, a leader hands over. Safe in a finalizer, and after `land`."""
        self._left.append(seat)
        self._tidy()

    def __len__(self) -> int:
        return len(self._followers)

    def _tidy(self) -> None:
        while self._left and self._lock.acquire(blocking=False):
            calls: list[Callable[[], None]] = []
            try:
                while self._left:
                    heir = self._unseat(self._left.popleft())
                    if heir is not None and heir._notify is not None:
                        calls.append(heir._notify)
            finally:
                self._lock.release()
            for notify in calls:
                notify()

    def _unseat(self, seat: FlightSeat[T]) -> FlightSeat[T] | None:
        followers = self._followers.get(seat.key)
        if followers is None or seat.outcome is not None:  # settled: the key may be another flight's by now
            return None
        if not seat.leads:
            if seat in followers:
                followers.remove(seat)
            return None
        if not followers:
            del self._followers[seat.key], self._leaders[seat.key]
            return None
        heir = self._leaders[seat.key] = followers.popleft()
        heir.leads = True
        return heir
