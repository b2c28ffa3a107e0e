"""Stream what has no end of its own to a control client, until it goes or the service closes. On the service's loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from . import request_fields
from .event_log import EventLog
from .request_fields import Fields

Chunk = tuple[bool, Any]  # (False, a chunk) or, last, (True, the stream's value)


class Following:
    """The endless streams of one client."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Task[Any]] = set()
        self._is_ending = False

    def end(self) -> None:
        """End them."""
        self._is_ending = True
        for task in tuple(self._waiting):
            task.cancel()

    async def rows(
        self, log: EventLog, fields: Fields, is_wanted: Callable[[dict[str, Any]], bool] = lambda row: True
    ) -> AsyncGenerator[Chunk, None]:
        """Yield the last `recent` rows that are wanted (without it, all), and with `follow` the coming ones."""
        kept, follower = log.follow(asyncio.get_running_loop())
        try:
            recent = [row for row in kept if is_wanted(row)]
            wanted = min(len(recent), request_fields.count(fields, "recent", default=len(recent)))
            for row in recent[len(recent) - wanted :]:
                yield False, row
            if request_fields.flag(fields, "follow"):
                async for row in self.each(follower.next):
                    if is_wanted(row):
                        yield False, row
        finally:
            follower.close()
        yield True, None

    async def each(
        self, following: Callable[[], Awaitable[dict[str, Any] | None]]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield what `following` gives until that is None, or they end."""
        while not self._is_ending:
            waiting = asyncio.ensure_future(following())
            self._waiting.add(waiting)
            try:
                row = await waiting
            except asyncio.CancelledError:
                if waiting.cancelled() and not _is_cancelling():
                    return
                raise
            finally:
                waiting.cancel()
                self._waiting.discard(waiting)
            if row is None:
                return
            yield row


def _is_cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
