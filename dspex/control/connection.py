"""One client of the control service: reading its requests, running each as a task, writing what comes of them.

Everything here runs on the service's loop. A client may have `MAX_IN_FLIGHT` requests under way; it must say hello
within `HELLO_PATIENCE`, finish a frame that it began within `FRAME_PATIENCE`, and read what it is sent: one that does
none of it is cut off. When it goes away its requests are cancelled and its own sessions forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from typing import TYPE_CHECKING, Any

from dspex_worker.wire import FrameBuffer, Malformed, OverLimit, Unencodable

from ..errors import DspexError, FrameTooLarge, PoolSaturated, ProtocolError
from . import crossing, protocol
from .protocol import Kind, Message

if TYPE_CHECKING:
    from .verbs import Verbs

HELLO_PATIENCE = 5.0  # seconds until a stranger must have said hello
FRAME_PATIENCE = 30.0  # seconds that the rest of a frame may take
WRITE_PATIENCE = 30.0  # seconds that a client may leave a full socket unread
MAX_PENDING = 64 * 1024 * 1024  # bytes for one client: with more waiting it has only
CROWDED_PATIENCE = 1.0  # seconds to read on
READS_WELL = 64 * 1024  # bytes: with fewer unread nobody waits
MAX_IN_FLIGHT = 1000
CHUNK = 256 * 1024  # bytes of one read


class Connection:
    """One client, from its hello to its end."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, client: str, verbs: Verbs
    ) -> None:
        self.client = client
        self._reader = reader
        self._writer = writer
        self._verbs = verbs
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._credits: dict[int, Credit] = {}
        self._turn = asyncio.Lock()  # who may write: one answer after the other
        self._pending = 0  # bytes of all answers that wait to be read

    async def serve(self) -> None:
        """Answer it until it goes away."""
        verbs = self._verbs
        try:
            if await self._is_welcome():
                verbs.begin(self.client)
                await self._read_forever()
        except (Malformed, TimeoutError) as error:
            await refuse(self._writer, f"it closes this connection: {str(error) or 'the client was too slow'}")
        except OSError:
            pass  # the client went away in the middle of something
        finally:
            await self._end()

    async def finish(self, patience: float) -> None:
        """The service closes: let what has ended be written, cancel the rest."""
        self._verbs.end_following()
        tasks = tuple(self._tasks.values())
        if tasks:
            await asyncio.wait(tasks, timeout=patience)
        await self._end()

    @property
    def descriptor(self) -> int:
        """The socket's number; -1 once it is closed."""
        sock = self._writer.get_extra_info("socket")
        return sock.fileno() if sock is not None else -1

    # ============================================================================================================

    async def _is_welcome(self) -> bool:
        """Whether it is our own user, and speaks the protocol."""
        uid = peer_uid(self._writer.get_extra_info("socket"))
        if uid != os.getuid():
            await refuse(self._writer, f"it belongs to uid {os.getuid()} and takes no calls of uid {uid}")
            return False
        self._frames = FrameBuffer(protocol.HELLO_LIMIT)
        message = await asyncio.wait_for(self._first_message(), HELLO_PATIENCE)
        if message is None:
            return False
        protocol.hello(message)
        await self._send(Kind.HELLO, protocol.MAGIC, *protocol.VERSION, self._verbs.greeting(self.client))
        return True

    async def _first_message(self) -> Message | None:
        while data := await self._reader.read(CHUNK):
            bodies = list(self._frames.feed(data))
            if bodies and (len(bodies) > 1 or self._frames.pending):
                raise Malformed("a client waits for the answer to its hello before it goes on")
            if bodies:
                return protocol.read(bodies[0])
        return None

    async def _read_forever(self) -> None:
        self._frames = FrameBuffer(protocol.LIMIT)
        loop = asyncio.get_running_loop()
        due: float | None = None  # when the frame that has begun must be whole
        while True:
            async with asyncio.timeout_at(due):
                data = await self._reader.read(CHUNK)
            if not data:
                return
            is_progress = False
            for body in self._frames.feed(data):
                is_progress = True
                await self._take(protocol.read(body))
            if not self._frames.pending:
                due = None
            elif due is None or is_progress:
                due = loop.time() + FRAME_PATIENCE

    async def _take(self, message: Message) -> None:
        match message:
            case [Kind.CALL, id, verb, arguments, meta]:
                await self._begin(id, verb, arguments, meta)
            case [Kind.CANCEL, id]:
                if task := self._tasks.get(id):
                    task.cancel()
            case [Kind.CREDIT, id, count]:
                if credit := self._credits.get(id):
                    credit.add(count)
            case _:
                raise Malformed(f"a client does not send {Kind(message[0]).name} messages")

    async def _begin(self, id: int, verb: str, arguments: dict[str, Any], meta: dict[str, Any]) -> None:
        if id in self._tasks:
            raise Malformed(f"request id {id} is in use")
        if len(self._tasks) >= MAX_IN_FLIGHT:
            busy = PoolSaturated("control", queued=len(self._tasks), limit=MAX_IN_FLIGHT, retry_after=0.1)
            await self._send(Kind.ERROR, id, crossing.describe(busy), None)
            return
        first = meta.get("credit")
        credit = Credit(first) if isinstance(first, int) else None
        if credit is not None:
            self._credits[id] = credit
        task = asyncio.get_running_loop().create_task(self._answer(id, verb, arguments, credit))
        self._tasks[id] = task
        task.add_done_callback(lambda _: self._forget(id))

    def _forget(self, id: int) -> None:
        self._tasks.pop(id, None)
        self._credits.pop(id, None)

    async def _answer(self, id: int, verb: str, arguments: dict[str, Any], credit: Credit | None) -> None:
        """Run one request and send its outcome; a cancelled one sends nothing."""
        try:
            if credit is None:
                await self._send(Kind.RESULT, id, await self._verbs.answer(verb, arguments), None)
            else:
                await self._stream(id, verb, arguments, credit)
        except (Unencodable, OverLimit) as error:
            await self._send_error(id, _unsendable(error))
        except OSError as error:
            if isinstance(error, DspexError | TimeoutError):
                await self._send_error(id, error)
        except Exception as error:  # it is the client's to hear
            await self._send_error(id, error)

    async def _stream(self, id: int, verb: str, arguments: dict[str, Any], credit: Credit) -> None:
        async with contextlib.aclosing(self._verbs.chunks(verb, arguments)) as chunks:
            value = None
            async for is_last, item in chunks:
                if is_last:
                    value = item
                    break
                await credit.take()
                await self._send(Kind.CHUNK, id, item)
        await self._send(Kind.END, id, value, None)

    async def _send_error(self, id: int, error: BaseException) -> None:
        with contextlib.suppress(OSError):
            await self._send(Kind.ERROR, id, crossing.describe(error), None)

    async def _send(self, kind: Kind, *fields: object) -> None:
        """Write a message when it is its turn, and wait until the client has read most of it.

        Raises:
            ConnectionError: it is gone, or does not read.
        """
        frame = protocol.send(kind, *fields)
        self._pending += len(frame)
        try:
            async with self._turn:
                await self._until_read()  # the one before may have been cancelled as it waited
                if self._writer.is_closing():
                    raise ConnectionResetError("the client is gone")
                self._writer.write(frame)
                await self._until_read()
        finally:
            self._pending -= len(frame)

    async def _until_read(self) -> None:
        """Wait while much is unread; a client that reads nothing at all meanwhile is cut off."""
        transport, loop = self._writer.transport, asyncio.get_running_loop()
        unread, since = transport.get_write_buffer_size(), loop.time()
        while unread > READS_WELL:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._writer.drain(), CROWDED_PATIENCE)
            if (left := transport.get_write_buffer_size()) != unread:
                unread, since = left, loop.time()
            elif self._pending > MAX_PENDING or loop.time() - since > WRITE_PATIENCE:
                transport.abort()
                raise ConnectionResetError("the client does not read")

    async def _end(self) -> None:
        """Cancel what it asked for, forget its sessions, close its socket."""
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._verbs.end(self.client)
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(self._writer.wait_closed(), 1.0)


class Credit:
    """How many chunks a stream's consumer can take."""

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


async def refuse(writer: asyncio.StreamWriter, reason: str) -> None:
    """Tell a client why it is not served, and close."""
    described = crossing.describe(ProtocolError(f"The supervisor refuses: {reason}."))
    with contextlib.suppress(OSError, TimeoutError):
        writer.write(protocol.send(Kind.ERROR, 0, described, None))
        await asyncio.wait_for(writer.drain(), 1.0)
    writer.close()


def peer_uid(sock: socket.socket) -> int:
    """Give the user id of the process at the other end, as the kernel recorded it at connect."""
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(uid)


def _unsendable(error: Unencodable | OverLimit) -> DspexError:
    if isinstance(error, OverLimit):
        return FrameTooLarge("worker", error.limit, error.actual, what=error.what)
    return ProtocolError(f"The answer cannot be sent: {error}.")
