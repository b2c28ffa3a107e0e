"""Bound what all clients together make the service hold in memory. On the service's loop.

A client that reads may have much waiting: it is being written. One that reads nothing is dropped, at once when all
together hold more than the service may. Of large requests some are read at a time; the others wait in their sockets.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

MAX_TOTAL = 128 * 1024 * 1024  # bytes that wait for all clients
CROWDED_PATIENCE = 0.25  # seconds that a client may read nothing while that is exceeded


BIG = 1024 * 1024  # bytes of an unfinished request beyond which it is a large one
BIG_AT_ONCE = 8  # large requests that are read at a time, or fewer:
BIG_ROOM = 128 * 1024 * 1024  # bytes that those may have together


class BacklogReader(Protocol):
    """A connection as the backlog sees it."""

    pending: int  # bytes that wait to be read by this client

    def stuck_for(self) -> float: ...

    def drop(self, reason: str) -> None: ...


class Backlog:
    """Counts the bytes that wait, and drops clients that do not read."""

    def __init__(self) -> None:
        self.total = 0
        self._readers: set[BacklogReader] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, reader: BacklogReader, size: int) -> None:
        """`size` bytes more wait for a client."""
        self._readers.add(reader)
        reader.pending += size
        self.total += size
        if self.total > MAX_TOTAL and self._timer is None:
            self._relieve()

    def remove(self, reader: BacklogReader, size: int) -> None:
        """Count bytes out: they were read, or never will be."""
        reader.pending -= size
        self.total -= size
        if not reader.pending:
            self._readers.discard(reader)

    def close(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()

    def _relieve(self) -> None:
        """Drop whoever holds most and reads nothing; look again soon while it is still too much."""
        self._timer = None
        if self.total <= MAX_TOTAL:
            return
        stuck = [reader for reader in self._readers if reader.stuck_for() >= CROWDED_PATIENCE]
        if stuck:
            max(stuck, key=lambda reader: reader.pending).drop("unread")
        self._timer = asyncio.get_running_loop().call_later(CROWDED_PATIENCE / 5, self._relieve)


class LargeRequests:
    """Limits how many large requests are read at once."""

    def __init__(self, frame_limit: int) -> None:
        self._turns = asyncio.Semaphore(max(1, min(BIG_AT_ONCE, BIG_ROOM // frame_limit)))
        self._waiting = 0

    async def take_turn(self) -> None:
        """Wait until fewer are being read."""
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1

    def end_turn(self) -> None:
        """End the turn: the request is whole, or never will be."""
        self._turns.release()

    @property
    def is_crowded(self) -> bool:
        """Whether others wait for their turn: then one that sends nothing is not waited for."""
        return self._waiting > 0
