"""One client of the control service: reading its requests, running each as a task, writing what comes of them.

Everything here runs on the service's loop. A client may have `MAX_IN_FLIGHT` requests under way; it must say hello
within `HELLO_PATIENCE`, finish a frame that it began within `FRAME_PATIENCE`, and read what it is sent: one that does
none of it is dropped. When it goes away its requests are cancelled and its own sessions forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dspex_worker.wire import FrameBuffer, Malformed, OverLimit, Unencodable

from ..errors import DspexError, FrameTooLarge, PoolSaturated, ProtocolError, UnavailableError
from ..events import Name
from . import error_messages, peer_credentials, protocol
from .backlog import BIG, Backlog, LargeRequests
from .connection_places import ConnectionPlaces
from .protocol import Kind, Message, Role
from .refusals import LAST_WORDS, because, refusal, refuse, reject
from .stream_credit import StreamCredit
from .throttled_events import ThrottledEvents

if TYPE_CHECKING:
    from .handlers import Handlers

HELLO_PATIENCE = 5.0  # seconds until a stranger must have said hello
FRAME_PATIENCE = 30.0  # seconds that the rest of a frame may take
WRITE_PATIENCE = 30.0  # seconds that a client may leave a full socket unread
MAX_PENDING = 32 * 1024 * 1024  # bytes for one client: with more waiting it has only
CROWDED_PATIENCE = 1.0  # seconds to read on
READS_WELL = 64 * 1024  # bytes: with fewer unread nobody waits
MAX_IN_FLIGHT = 1000
CHUNK = 256 * 1024  # bytes of one read


class ServerConnection:
    """One client, from its hello to its end."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        client: str,
        is_on_reserve: bool,
        verbs: Handlers,
        house: House,
    ) -> None:
        self.client = client
        self.is_on_reserve = is_on_reserve
        self.pending = 0  # bytes of all answers that wait to be read; kept by the backlog
        self.active_at = asyncio.get_running_loop().time()  # its last request
        self._reader = reader
        self._writer = writer
        self._verbs = verbs
        self._house = house
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._credits: dict[int, StreamCredit] = {}
        self._turn = asyncio.Lock()  # who may write: one answer after the other
        self._unread = (0, 0.0)  # bytes that wait in the transport, and since when it is so many
        self._is_dropped = False
        self._has_turn = False  # to read a large request

    async def serve(self) -> None:
        """Answer it until it goes away."""
        try:
            if await self._is_welcome():
                await self._read_forever()
        except UnavailableError as error:
            self._house.reports.tell(Name.CLIENT_REFUSED, type(error).__name__, client=self.client)
            await reject(self._writer, error)
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

    def drop(self, reason: str) -> None:
        """Cut it off now, with an event; what waits for it is thrown away."""
        if not self._is_dropped:
            self._is_dropped = True
            self._house.reports.tell(Name.CLIENT_DROPPED, reason, client=self.client, unread_bytes=self.pending)
        self._writer.transport.abort()

    def dismiss(self, reason: str) -> None:
        """Make it leave its place to another, and tell it why."""
        self._is_dropped = True
        self._house.admission.leave(self)
        self._house.reports.tell(Name.CLIENT_DROPPED, "displaced", client=self.client)
        self._writer.write(refusal(because(reason)))
        self._writer.close()
        asyncio.get_running_loop().call_later(LAST_WORDS, self._writer.transport.abort)

    def stuck_for(self) -> float:
        """For how many seconds it has read nothing of what waits for it."""
        unread, now = self._writer.transport.get_write_buffer_size(), asyncio.get_running_loop().time()
        if unread != self._unread[0] or unread <= READS_WELL:
            self._unread = (unread, now)
        return now - self._unread[1]

    @property
    def is_busy(self) -> bool:
        return bool(self._tasks)

    @property
    def descriptor(self) -> int:
        """The socket's number; -1 once it is closed."""
        sock = self._writer.get_extra_info("socket")
        return sock.fileno() if sock is not None else -1

    # ============================================================================================================

    async def _is_welcome(self) -> bool:
        """Whether it is our own user, speaks the protocol, and has a place.

        Raises:
            UnavailableError: there is no place for it.
        """
        _, uid = peer_credentials.credentials(self._writer.get_extra_info("socket"))
        if uid != os.getuid():
            await refuse(self._writer, f"it belongs to uid {os.getuid()} and takes no calls of uid {uid}")
            return False
        self._frames = FrameBuffer(protocol.HELLO_LIMIT)
        message = await asyncio.wait_for(self._first_message(), HELLO_PATIENCE)
        if message is None:
            return False
        role = str(protocol.hello(message).get("role", Role.CLIENT))
        if (displaced := self._house.admission.admit(self, role)) is not None:
            displaced.dismiss("another operator came, and this one was quiet longest")
        self._verbs.begin(self.client, role)
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
        while data := await self._read(due):
            is_progress = False
            for body in self._frames.feed(data):
                is_progress = True
                await self._take(protocol.read(body))
            is_first = await self._wait_for_turn()
            if not self._frames.pending:
                due = None
            elif due is None or is_progress or is_first:
                due = loop.time() + FRAME_PATIENCE

    async def _read(self, due: float | None) -> bytes:
        """Read what has come; nothing at its end.

        Raises:
            TimeoutError: a frame is not whole in time, or sends nothing while others wait for its turn.
        """
        loop = asyncio.get_running_loop()
        while True:
            look = loop.time() + CROWDED_PATIENCE if self._has_turn else due
            try:
                async with asyncio.timeout_at(look):
                    return await self._reader.read(CHUNK)
            except TimeoutError:
                is_in_the_way = self._has_turn and self._house.requests.is_crowded
                if is_in_the_way or (due is not None and loop.time() >= due):
                    raise

    async def _wait_for_turn(self) -> bool:
        """Read on in a large request only when it is its turn; whether it had to be asked for."""
        is_large = self._frames.pending > BIG
        if is_large and not self._has_turn:
            await self._house.requests.take_turn()
            self._has_turn = True
            return True
        if not is_large:
            self._end_turn()
        return False

    def _end_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self._house.requests.end_turn()

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
        self.active_at = asyncio.get_running_loop().time()
        if len(self._tasks) >= MAX_IN_FLIGHT:
            busy = PoolSaturated("control", queued=len(self._tasks), limit=MAX_IN_FLIGHT, retry_after=0.1)
            await self._send(Kind.ERROR, id, error_messages.describe(busy), None)
            return
        first = meta.get("credit")
        credit = StreamCredit(first) if isinstance(first, int) else None
        if credit is not None:
            self._credits[id] = credit
        task = asyncio.get_running_loop().create_task(self._answer(id, verb, arguments, credit))
        self._tasks[id] = task
        task.add_done_callback(lambda _: self._forget(id))

    def _forget(self, id: int) -> None:
        self._tasks.pop(id, None)
        self._credits.pop(id, None)

    async def _answer(self, id: int, verb: str, arguments: dict[str, Any], credit: StreamCredit | None) -> None:
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

    async def _stream(self, id: int, verb: str, arguments: dict[str, Any], credit: StreamCredit) -> None:
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
            await self._send(Kind.ERROR, id, error_messages.describe(error), None)

    async def _send(self, kind: Kind, *fields: object) -> None:
        """Write a message when it is its turn, and wait until the client has read most of it.

        Raises:
            ConnectionError: it is gone, or does not read.
        """
        if self._writer.is_closing():
            raise ConnectionResetError("the client is gone")
        frame = protocol.send(kind, *fields)
        self._house.backlog.add(self, len(frame))
        try:
            async with self._turn:
                await self._until_read()  # the one before may have been cancelled as it waited
                if self._writer.is_closing():
                    raise ConnectionResetError("the client is gone")
                self._writer.write(frame)
                await self._until_read()
        finally:
            self._house.backlog.remove(self, len(frame))

    async def _until_read(self) -> None:
        """Wait while much is unread; a client that reads nothing at all meanwhile is dropped."""
        while self._writer.transport.get_write_buffer_size() > READS_WELL:
            self.stuck_for()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._writer.drain(), CROWDED_PATIENCE)
            stuck = self.stuck_for()
            if stuck > WRITE_PATIENCE or (stuck >= CROWDED_PATIENCE and self.pending > MAX_PENDING):
                self.drop("unread")
                raise ConnectionResetError("the client does not read")

    async def _end(self) -> None:
        """Cancel what it asked for, forget its sessions, close its socket."""
        self._end_turn()
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._verbs.end(self.client)
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(self._writer.wait_closed(), LAST_WORDS)
        self._writer.transport.abort()  # it does not read them: its descriptor is needed


@dataclass(frozen=True, slots=True)
class House:
    """What the connections of one service share."""

    admission: ConnectionPlaces[ServerConnection]
    backlog: Backlog
    requests: LargeRequests
    reports: ThrottledEvents


def _unsendable(error: Unencodable | OverLimit) -> DspexError:
    if isinstance(error, OverLimit):
        return FrameTooLarge("worker", error.limit, error.actual, what=error.what)
    return ProtocolError(f"The answer cannot be sent: {error}.")
