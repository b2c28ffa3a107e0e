"""Limit how far a stream may be ahead of its reader. On the service's loop."""

from __future__ import annotations

import asyncio


class StreamCredit:
    """The number of chunks that a stream's consumer can take."""

    def __init__(self, first: int) -> None:
        self._left = max(0, first)
        self._came = asyncio.Event()

    def add(self, count: int) -> None:
        self._left += max(0, count)
        self._came.set()

    async def take(self) -> None:
        """Wait for one, and use it."""
        while self._left <= 0:
            self._came.clear()
            await self._came.wait()
        self._left -= 1
