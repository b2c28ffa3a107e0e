"""Single flight: of callers with the same request at the same time, one sends it, the others wait (RULES I6).

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


class FlightMember(Generic[T]):
    """One caller in a flight. `leads`: do the work, then `land` or `leave`. Else wait for `outcome`.

    `thread` is where its caller waits; `paused_since` is the time since which a leader's
    stream waits for its reader.
    """

    __slots__ = ("_notify", "key", "leads", "outcome", "paused_since", "thread")

    def __init__(self, key: bytes, leads: bool) -> None:
        self.key = key
        self.leads = leads
        self.outcome: T | None = None
        self.thread = threading.get_ident()
        self.paused_since: float | None = None
        self._notify: Callable[[], None] | None = None

    @property
    def settled(self) -> bool:
        """Whether waiting is over: there is an outcome, or this caller leads now."""
        return self.leads or self.outcome is not None

    def pause(self) -> None:
        """Note that the stream waits for its reader, who may take any time."""
        self.paused_since = time.monotonic()

    def resume(self) -> None:
        """Note that the reader asked for the next part."""
        self.paused_since = None


class SingleFlight(Generic[T]):
    """The flights under way, by key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._followers: dict[bytes, deque[FlightMember[T]]] = {}
        self._leaders: dict[bytes, FlightMember[T]] = {}
        self._left: deque[FlightMember[T]] = deque()

    def join(self, key: bytes) -> FlightMember[T]:
        """Join the flight of this key: as its leader if nobody asks this now."""
        with self._lock:
            followers = self._followers.get(key)
            member = FlightMember[T](key, leads=followers is None)
            if followers is None:
                self._followers[key] = deque()
                self._leaders[key] = member
            else:
                followers.append(member)
        self._tidy()
        return member

    def watch(self, member: FlightMember[T], notify: Callable[[], None]) -> bool:
        """Have `notify` called once, from any thread, when its wait is over; False if it is already."""
        with self._lock:
            waits = not member.settled
            if waits:
                member._notify = notify
        self._tidy()
        return waits

    def leads_here(self, member: FlightMember[T]) -> bool:
        """Return whether the leader needs the calling thread, which therefore must not wait for it."""
        leader = self._leaders.get(member.key)
        return leader is not None and leader.thread == threading.get_ident()

    def is_stalled(self, member: FlightMember[T]) -> bool:
        """Return whether the leader's stream has waited for its reader for too long."""
        leader = self._leaders.get(member.key)
        since = None if leader is None else leader.paused_since
        return since is not None and time.monotonic() - since >= STALL_S

    def land(self, member: FlightMember[T], outcome: T) -> None:
        """Set the leader's outcome, for every member, and wake the followers."""
        with self._lock:
            member.outcome = outcome
            self._leaders.pop(member.key, None)
            followers = self._followers.pop(member.key, None) or ()
            for follower in followers:
                follower.outcome = outcome
            calls = [f._notify for f in followers if f._notify is not None]
        for notify in calls:
            notify()
        self._tidy()

    def leave(self, member: FlightMember[T]) -> None:
        """Leave the flight: a follower stops waiting, a leader hands over. Safe in a finalizer, and after `land`."""
        self._left.append(member)
        self._tidy()

    def __len__(self) -> int:
        return len(self._followers)

    def _tidy(self) -> None:
        while self._left and self._lock.acquire(blocking=False):
            calls: list[Callable[[], None]] = []
            try:
                while self._left:
                    heir = self._remove(self._left.popleft())
                    if heir is not None and heir._notify is not None:
                        calls.append(heir._notify)
            finally:
                self._lock.release()
            for notify in calls:
                notify()

    def _remove(self, member: FlightMember[T]) -> FlightMember[T] | None:
        followers = self._followers.get(member.key)
        if followers is None or member.outcome is not None:  # settled: the key may be another flight's by now
            return None
        if not member.leads:
            if member in followers:
                followers.remove(member)
            return None
        if not followers:
            del self._followers[member.key], self._leaders[member.key]
            return None
        heir = self._leaders[member.key] = followers.popleft()
        heir.leads = True
        return heir
