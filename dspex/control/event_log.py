"""Keep the supervisor's recent events, and pass new ones to followers.

`take` runs on the events thread; everything else on the service's loop. A follower that reads slowly loses its oldest
events and gets their number instead; it holds up nobody.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from dspex_worker.wire.error_codec import plain

from ..events import Event
from ..lm.redaction import redact

RECENT = 200  # events that are kept for those who come later
LINES = 2000  # of the log that are kept likewise
LINES_SIZE = 4 * 1024 * 1024  # characters of them
BEHIND = 1000  # events that a follower may be behind


class EventLog:
    """Keeps the last events of a level or above, and passes each new one to the followers."""

    def __init__(self, *, least: int = 0, count: int = RECENT, size: int = LINES_SIZE) -> None:
        """Keep `count` events, with texts of `size` characters at most."""
        self._least = least
        self._count = count
        self._size = size
        self._kept = 0  # characters
        self._lock = threading.Lock()
        self._recent: deque[dict[str, Any]] = deque()
        self._followers: list[Follower] = []

    def take(self, event: Event) -> None:
        """Keep an event; for `Supervisor.on_event`."""
        if event.level < self._least:
            return
        row = event_row(event)
        with self._lock:
            self._recent.append(row)
            self._kept += _length(row)
            while len(self._recent) > self._count or self._kept > self._size:
                self._kept -= _length(self._recent.popleft())
            followers = tuple(self._followers)
        for follower in followers:
            follower.push(row)

    def recent(self) -> list[dict[str, Any]]:
        """Return the last events, the oldest first."""
        with self._lock:
            return list(self._recent)

    def follow(self, loop: asyncio.AbstractEventLoop) -> tuple[list[dict[str, Any]], Follower]:
        """Return the events so far and a follower of all later ones: none is missed or given twice."""
        follower = Follower(loop, leave=self._leave)
        with self._lock:
            self._followers.append(follower)
            return list(self._recent), follower

    def _leave(self, follower: Follower) -> None:
        with self._lock:
            if follower in self._followers:
                self._followers.remove(follower)


class Follower:
    """One reader's queue of events."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, leave: Callable[[Follower], None]) -> None:
        self._loop = loop
        self._leave = leave
        self._waiting: deque[dict[str, Any]] = deque(maxlen=BEHIND)
        self._dropped = 0
        self._is_woken = False  # one wake-up is under way: more would only fill the loop's own queue
        self._arrived = asyncio.Event()

    def push(self, row: dict[str, Any]) -> None:
        """Add an event; on the events thread."""
        self._dropped += len(self._waiting) == BEHIND
        self._waiting.append(row)
        if not self._is_woken:
            self._is_woken = True
            try:
                self._loop.call_soon_threadsafe(self._wake)
            except RuntimeError:
                self.close()  # the loop is closed, and its reader with it

    async def next(self) -> dict[str, Any]:
        """Return the next event, or how many were dropped since the last."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            return {"dropped": dropped}
        return self._waiting.popleft()

    def close(self) -> None:
        """Follow no more."""
        self._leave(self)

    def _wake(self) -> None:
        self._is_woken = False
        self._arrived.set()


def _length(row: dict[str, Any]) -> int:
    return sum(len(value) for value in row["facts"].values() if isinstance(value, str))


def event_row(event: Event) -> dict[str, Any]:
    """Return an event as clients get it: plain, and without keys."""
    return {
        "time": event.time,
        "name": event.name.value,
        "level": event.level,
        "facts": {key: _readable(value) for key, value in event.facts.items()},
    }


def _readable(value: Any) -> Any:
    value = plain(value)
    return redact(value) if isinstance(value, str) else value
