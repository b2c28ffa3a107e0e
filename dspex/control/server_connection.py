"""Serve one client's connection: read its requests, run each as a task, write the outcomes.

Everything here runs on the service's loop. A client may have `MAX_IN_FLIGHT` requests under way; it must say hello
within `HELLO_PATIENCE`, finish a frame that it began within `FRAME_PATIENCE`, and read what it is sent
(`server_writer`). When it goes away its requests are cancelled and its own sessions dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from dataclasses import dataclass
from typing import Any

from dspex_worker.wire import FrameBuffer, Malformed, OverLimit, Unencodable

from ..errors import DspexError, PoolSaturated, UnavailableError
from ..events import Name
from ..pools.inspection import ClientRow
from . import error_messages, peer_credentials, protocol
from .backlog import BIG, Backlog, LargeRequests
from .client_callbacks import ClientCallbacks
from .connection_places import ConnectionPlaces
from .handlers import Handlers
from .held_requests import HeldRequests
from .protocol import Kind, Message, Role
from .refusals import REFUSALS, because, refusal, refuse, reject, unsendable
from .request_fields import Fields
from .served_calls import Answered, NotedError
from .server_writer import ServerWriter
from .stream_credit import StreamCredit
from .throttled_events import ThrottledEvents

HELLO_PATIENCE = 5.0  # seconds until a stranger must have said hello
FRAME_PATIENCE = 30.0  # seconds that the rest of a frame may take
CROWDED_PATIENCE = 1.0  # seconds that a large request may send nothing while others wait for their turn
MAX_IN_FLIGHT = 1000
CHUNK = 256 * 1024  # bytes of one read


class ServerConnection:
    """One client's connection, from its HELLO to its end."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        client: str,
        is_on_reserve: bool,
        handlers: Handlers,
        resources: ServerResources,
    ) -> None:
        self.client = client
        self.is_on_reserve = is_on_reserve
        self.active_at = self._began_at = asyncio.get_running_loop().time()  # its last request
        self._pid = 0
        self._reader = reader
        self._writer = writer
        self._handlers = handlers
        self._resources = resources
        self._limit = resources.frame_limit + protocol.LIMIT_ENVELOPE
        self._answers = ServerWriter(writer, client=client, backlog=resources.backlog, events=resources.events)
        self._callbacks = handlers.callbacks = ClientCallbacks(self._send)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._credits: dict[int, StreamCredit] = {}
        self._has_turn = False  # to read a large request
        self._held = 0  # bytes of its requests under way

    async def serve(self) -> None:
        """Answer it until it goes away."""
        try:
            if await self._accept():
                await self._read_forever()
        except REFUSALS as error:
            self._resources.events.emit(Name.CLIENT_REFUSED, type(error).__name__, client=self.client)
            await reject(self._writer, error)
        except (Malformed, TimeoutError) as error:
            await refuse(self._writer, f"it closes this connection: {str(error) or 'the client was too slow'}")
        except OSError:
            pass  # the client went away in the middle of something
        finally:
            await self._end()

    async def finish(self, patience: float) -> None:
        """End it because the service closes: what has ended is still written, the rest is cancelled."""
        self._handlers.end_following()
        tasks = tuple(self._tasks.values())
        if tasks:
            await asyncio.wait(tasks, timeout=patience)
        await self._end()

    def drop(self, reason: str) -> None:
        """Cut it off now, with an event."""
        self._answers.drop(reason)

    def dismiss(self, reason: str) -> None:
        """Give its place to another client, with an error that says why."""
        self._resources.places.leave(self)
        self._answers.displace(refusal(because(reason)))

    def row(self, now: float) -> ClientRow:
        """Return what an operator sees of it; `now` on its loop's clock. Any thread."""
        return {
            "client": self.client,
            "role": self._handlers.role,
            "pid": self._pid,
            "age_s": max(0.0, now - self._began_at),
            "idle_s": max(0.0, now - self.active_at),
            "requests": len(self._tasks),
            "unread_bytes": self._answers.pending,
        }

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way."""
        return bool(self._tasks)

    @property
    def descriptor(self) -> int:
        """The socket's number; -1 once it is closed."""
        sock = self._writer.get_extra_info("socket")
        return sock.fileno() if sock is not None else -1

    # ============================================================================================================

    async def _accept(self) -> bool:
        """Exchange hellos; False if it is refused, or gone already.

        Raises:
            UnavailableError: there is no place for it.
        """
        self._pid, uid = peer_credentials.credentials(self._writer.get_extra_info("socket"))
        if uid != os.getuid():
            await refuse(self._writer, f"it belongs to uid {os.getuid()} and takes no calls of uid {uid}")
            return False
        self._frames = FrameBuffer(protocol.HELLO_LIMIT)
        message = await asyncio.wait_for(self._first_message(), HELLO_PATIENCE)
        if message is None:
            return False
        hello = protocol.hello(message)
        role = str(hello.get("role", Role.CLIENT))
        greeting = self._handlers.begin(role, hello)
        if (displaced := self._resources.places.admit(self, role)) is not None:
            displaced.dismiss("another operator came, and this one was quiet longest")
        greeting["frame_limit"] = self._resources.frame_limit
        await self._send(Kind.HELLO, protocol.MAGIC, *protocol.VERSION, greeting)
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
        self._frames = FrameBuffer(self._limit)
        loop = asyncio.get_running_loop()
        due: float | None = None  # when the frame that has begun must be whole
        while data := await self._read(due):
            is_progress = False
            for body in self._frames.feed(data):
                is_progress = True
                await self._on_message(protocol.read_request(body), len(body))
            if not (pending := self._frames.pending):
                self._end_turn()
                due = None
            elif await self._wait_for_turn(pending) or due is None or is_progress:
                due = loop.time() + FRAME_PATIENCE

    async def _read(self, due: float | None) -> bytes:
        """Read what has arrived; empty at the end.

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
                is_in_the_way = self._has_turn and self._resources.large_requests.is_crowded
                if is_in_the_way or (due is not None and loop.time() >= due):
                    raise

    async def _wait_for_turn(self, pending: int) -> bool:
        """Read on in a large request only when it is its turn; True if it had to wait for that."""
        is_large = pending > BIG
        if is_large and not self._has_turn:
            await self._resources.large_requests.take_turn()
            self._has_turn = True
            return True
        if not is_large:
            self._end_turn()
        return False

    def _end_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self._resources.large_requests.end_turn()

    async def _on_message(self, message: Message, size: int) -> None:
        match message:
            case [Kind.CALL, id, verb, fields, meta]:
                await self._begin(id, verb, fields, meta, size)
            case [Kind.CANCEL, id]:
                if task := self._tasks.get(id):
                    task.cancel()
            case [Kind.CREDIT, id, count]:
                if credit := self._credits.get(id):
                    credit.add(count)
            case [Kind.RESULT | Kind.ERROR | Kind.CHUNK | Kind.END, *_]:
                self._callbacks.take(message)
            case _:
                raise Malformed(f"a client does not send {Kind(message[0]).name} messages")

    async def _begin(self, id: int, verb: str, fields: Fields, meta: dict[str, Any], size: int) -> None:
        if id in self._tasks:
            raise Malformed(f"request id {id} is in use")
        self.active_at = asyncio.get_running_loop().time()
        if len(self._tasks) >= MAX_IN_FLIGHT:
            busy = PoolSaturated("control", queued=len(self._tasks), limit=MAX_IN_FLIGHT, retry_after=0.1)
            await self._send_error(id, busy)
            return
        try:
            self._resources.held.hold(self._held, size)
        except UnavailableError as error:
            await self._send_error(id, error)
            return
        self._held += size
        first = meta.get("credit")
        credit = StreamCredit(first) if isinstance(first, int) else None
        if credit is not None:
            self._credits[id] = credit
        task = asyncio.get_running_loop().create_task(self._answer(id, verb, fields, credit))
        self._tasks[id] = task
        task.add_done_callback(functools.partial(self._discard, id, size))

    def _discard(self, id: int, size: int, _: asyncio.Task[None]) -> None:
        self._resources.held.release(size)
        self._held -= size
        self._tasks.pop(id, None)
        self._credits.pop(id, None)

    async def _answer(self, id: int, verb: str, fields: Fields, credit: StreamCredit | None) -> None:
        """Run one request and send its outcome; a cancelled one sends nothing."""
        try:
            if credit is None:
                answer = await self._handlers.answer(verb, fields, id)
                await self._send_value(Kind.RESULT, id, answer.value, answer.notes)
            else:
                await self._stream(id, verb, fields, credit)
        except (Unencodable, OverLimit) as error:
            await self._send_error(id, unsendable(error))
        except OSError as error:
            if isinstance(error, DspexError | TimeoutError):
                await self._send_error(id, error)
        except Exception as error:  # the client is told
            await self._send_error(id, error)

    async def _stream(self, id: int, verb: str, fields: Fields, credit: StreamCredit) -> None:
        async with contextlib.aclosing(self._handlers.chunks(verb, fields, id)) as chunks:
            value, notes = None, None
            async for is_last, item in chunks:
                if is_last:
                    value, notes = (item.value, item.notes) if isinstance(item, Answered) else (item, None)
                    break
                await credit.take()
                await self._send_value(Kind.CHUNK, id, item)
        await self._send_value(Kind.END, id, value, notes)

    async def _send_error(self, id: int, raised: BaseException) -> None:
        error, notes = (raised.error, raised.notes) if isinstance(raised, NotedError) else (raised, None)
        with contextlib.suppress(OSError):
            await self._send(Kind.ERROR, id, error_messages.describe(error), notes)

    async def _send(self, kind: Kind, *fields: object) -> None:
        await self._answers.send(protocol.send(kind, *fields, limit=self._limit))

    async def _send_value(self, kind: Kind, id: int, value: object, notes: dict[str, Any] | None = None) -> None:
        await self._answers.send(protocol.send_value(kind, id, value, notes, limit=self._limit))

    async def _end(self) -> None:
        """Cancel what it asked for, drop its sessions, close its socket."""
        self._end_turn()
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._handlers.end()
        await self._answers.close()


@dataclass(frozen=True, slots=True)
class ServerResources:
    """What the connections of one service share."""

    places: ConnectionPlaces[ServerConnection]
    backlog: Backlog
    large_requests: LargeRequests
    held: HeldRequests
    frame_limit: int  # bytes: the largest of its pools' when it began
    events: ThrottledEvents
