"""Write server-sent events: `chunk`, `usage`, `prediction`, `error`, each with JSON in `data`.

The response begins with the first event, so that what fails before it has an HTTP status of its own; or after
`PING_EVERY` seconds, with comments that keep proxies from giving the connection up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from starlette.types import Send

from .json_text import json_bytes
from .problems import Problem

PING_EVERY: Final = 15.0  # seconds
_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx passes on what comes
    (b"x-content-type-options", b"nosniff"),
]


@dataclass(frozen=True, slots=True)
class ServedEvent:
    """One event."""

    kind: str
    data: Any

    def encoded(self) -> bytes:
        """Return its lines; JSON has no line breaks."""
        return b"event: %s\ndata: %s\n\n" % (self.kind.encode(), json_bytes(self.data))


class EventWriter:
    """Writes the events of one response."""

    def __init__(self, send: Send) -> None:
        self.is_started = False
        self._send = send
        self._lock = asyncio.Lock()

    async def write(self, events: AsyncIterator[ServedEvent]) -> None:
        """Write all events and end the response; what `events` raises passes through, and leaves it open."""
        pings = asyncio.ensure_future(self._ping())
        try:
            async for event in events:
                await self._say(event.encoded())
        finally:
            pings.cancel()
        await self._say(b"", more=False)

    async def fail(self, problem: Problem) -> None:
        """End a response that has begun, with an error."""
        await self._say(ServedEvent("error", problem.to_json()).encoded(), more=False)

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING_EVERY)
            await self._say(b": ping\n\n")

    async def _say(self, body: bytes, *, more: bool = True) -> None:
        async with self._lock:
            if not self.is_started:
                self.is_started = True
                await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await self._send({"type": "http.response.body", "body": body, "more_body": more})
