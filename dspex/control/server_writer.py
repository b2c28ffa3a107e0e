"""Write to one client's connection, one answer after the other. On the service's loop.

What waits for the client is counted in the service's backlog. A client that reads is waited for however much it is; one
that reads nothing is dropped: after `WRITE_PATIENCE`, sooner if much waits for it, at once if all clients together
make the service hold too much.
"""

from __future__ import annotations

import asyncio
import contextlib

from ..events import Name
from .backlog import Backlog
from .refusals import LAST_WORDS
from .throttled_events import ThrottledEvents

WRITE_PATIENCE = 30.0  # seconds that a client may leave a full socket unread
MAX_PENDING = 32 * 1024 * 1024  # bytes for one client: with more waiting it has only
CROWDED_PATIENCE = 1.0  # seconds to read on
READS_WELL = 64 * 1024  # bytes: with fewer unread nobody waits


class ServerWriter:
    """Sends frames to one client, and drops it if it does not read them."""

    def __init__(self, writer: asyncio.StreamWriter, *, client: str, backlog: Backlog, events: ThrottledEvents) -> None:
        self.pending = 0  # bytes of all answers that wait to be read; kept by the backlog
        self._writer = writer
        self._client = client
        self._backlog = backlog
        self._events = events
        self._turn = asyncio.Lock()  # who may write: one answer after the other
        self._unread = (0, 0.0)  # bytes that wait in the transport, and since when it is so many
        self._is_dropped = False

    async def send(self, frame: bytes) -> None:
        """Write a frame when it is its turn, and wait until the client has read most of it.

        Raises:
            ConnectionError: it is gone, or does not read.
        """
        if self._writer.is_closing():
            raise ConnectionResetError("the client is gone")
        transport = self._writer.transport
        self._backlog.add(self, len(frame))
        try:
            async with self._turn:
                if (
                    transport.get_write_buffer_size() > READS_WELL
                ):  # the one before may have been cancelled as it waited
                    await self._until_read()
                if self._writer.is_closing():
                    raise ConnectionResetError("the client is gone")
                self._writer.write(frame)
                if transport.get_write_buffer_size() > READS_WELL:
                    await self._until_read()
        finally:
            self._backlog.remove(self, len(frame))

    def stuck_for(self) -> float:
        """Return for how many seconds it has read nothing of what waits for it."""
        unread, now = self._writer.transport.get_write_buffer_size(), asyncio.get_running_loop().time()
        if unread != self._unread[0] or unread <= READS_WELL:
            self._unread = (unread, now)
        return now - self._unread[1]

    def drop(self, reason: str) -> None:
        """Cut it off now, with an event; what waits for it is thrown away."""
        if not self._is_dropped:
            self._is_dropped = True
            self._events.emit(Name.CLIENT_DROPPED, reason, client=self._client, unread_bytes=self.pending)
        self._writer.transport.abort()

    def displace(self, last_frame: bytes) -> None:
        """Close the connection in favor of another; it has a moment to read why."""
        self._is_dropped = True
        self._events.emit(Name.CLIENT_DROPPED, "displaced", client=self._client)
        self._writer.write(last_frame)
        self._writer.close()
        asyncio.get_running_loop().call_later(LAST_WORDS, self._writer.transport.abort)

    async def close(self) -> None:
        """Let what is written be read for a moment, and close the socket."""
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(self._writer.wait_closed(), LAST_WORDS)
        self._writer.transport.abort()  # it does not read: its descriptor is needed

    async def _until_read(self) -> None:
        """Wait while much is unread.

        Raises:
            ConnectionResetError: the client reads nothing, and has been dropped.
        """
        while self._writer.transport.get_write_buffer_size() > READS_WELL:
            self.stuck_for()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._writer.drain(), CROWDED_PATIENCE)
            stuck = self.stuck_for()
            if stuck > WRITE_PATIENCE or (stuck >= CROWDED_PATIENCE and self.pending > MAX_PENDING):
                self.drop("unread")
                raise ConnectionResetError("the client does not read")
