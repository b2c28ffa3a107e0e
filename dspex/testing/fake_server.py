"""A loopback HTTP server that imitates a language model's endpoint, of one of OpenAI's APIs or of Anthropic's by path.

Owns one daemon thread with an event loop, one port of 127.0.0.1 and the record of what arrived. `close` ends all three.
Made and closed from any thread, also one whose event loop runs.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

from .replies import anthropic_replies, embedding_replies, openai_replies, responses_replies
from .replies.embedding_replies import EmbeddingScript
from .script import FakeReply, FakeRequest, NoAnswerLeft, Player
from .wording import words_for

_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    429: "Too Many Requests",
    500: "Internal Server Error",
}


_DIALECTS: Mapping[str, Any] = {"messages": anthropic_replies, "responses": responses_replies}  # by the path's end


class FakeServer:
    """Serves until `close`; `requests` holds what arrived, in order, also what was refused."""

    def __init__(
        self,
        play: Player,
        *,
        latency: float = 0.0,
        key: str | None = None,
        embeddings: EmbeddingScript | None = None,
    ) -> None:
        self.key = key or secrets.token_urlsafe(24)
        self.requests: list[FakeRequest] = []
        self.arrived = threading.Condition()
        self.hung_up = 0  # clients that went away before their reply was whole
        self.latency = latency
        self.ids = itertools.count(1)
        self.connections: set[_FakeConnection] = set()
        self._empty = asyncio.Event()
        self._leaving = asyncio.Event()
        self._play = play
        self._vector_of = embedding_replies.hashed_words if embeddings is None else embeddings
        self._ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(listener,), name="dspex-fake-lm", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving; waits for the thread. May be called twice."""
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._leaving.set)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    async def aclose(self) -> None:
        """`close` that lets the running loop go on meanwhile."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._leaving.set)
        await asyncio.wrap_future(self._ended)
        self.close()

    def wait_for(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """Wait until the condition holds; it is looked at again after every arrival and every hang-up.

        Raises:
            TimeoutError: it did not hold in time.
        """
        with self.arrived:
            if not self.arrived.wait_for(condition, timeout):
                raise self._not_in_time()

    async def await_for(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """`wait_for` that lets the running loop go on meanwhile.

        Raises:
            TimeoutError: it did not hold in time.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise self._not_in_time()
            await asyncio.sleep(0.002)

    def take(self, request: FakeRequest) -> FakeReply:
        """Note the request and decide what it gets."""
        with self.arrived:
            self.requests.append(request)
            self.arrived.notify_all()
        given = request.headers.get("authorization", "").removeprefix("Bearer ") or request.headers.get("x-api-key")
        if given != self.key:
            return FakeReply(status=401, error={"message": "FakeLM was given a key that is not its own."})
        try:
            if request.path.partition("?")[0].endswith("/embeddings"):
                return embedding_replies.reply(request, self._vector_of)
            return self._play(request)
        except NoAnswerLeft as error:
            return FakeReply(status=400, error={"message": str(error), "code": "no_answer_left"})
        except Exception as error:  # the user's own function: its failure must reach the test
            message = f"FakeLM's function raised {type(error).__name__}: {error}"
            return FakeReply(status=400, error={"message": message, "code": "script_failed"})

    def connected(self, connection: _FakeConnection) -> None:
        """A client has connected."""
        self.connections.add(connection)
        self._empty.clear()

    def disconnected(self, connection: _FakeConnection) -> None:
        """A connection has ended, by whichever side."""
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()

    def lost(self) -> None:
        """A client went away before its reply was whole."""
        with self.arrived:
            self.hung_up += 1
            self.arrived.notify_all()

    def _not_in_time(self) -> TimeoutError:
        return TimeoutError(f"the fake model saw {len(self.requests)} request(s) and {self.hung_up} hang-up(s)")

    def _run(self, listener: socket.socket) -> None:
        loop = self._loop
        try:
            loop.run_until_complete(self._serve(listener))
        finally:
            loop.close()
            listener.close()
            self._ended.set_result(None)

    async def _serve(self, listener: socket.socket) -> None:
        server = await self._loop.create_server(lambda: _FakeConnection(self), sock=listener)
        await self._leaving.wait()
        server.close()
        await self._end_connections()

    async def _end_connections(self) -> None:
        if not self.connections:
            return
        tasks = [connection.abort() for connection in list(self.connections)]
        await asyncio.gather(*[task for task in tasks if task is not None], return_exceptions=True)
        await self._empty.wait()


class _FakeConnection(asyncio.Protocol):
    """One client's connection; requests are answered one after the other."""

    def __init__(self, server: FakeServer) -> None:
        self._server = server
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.connected(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.disconnected(self)
        if self._task is not None:
            self._task.cancel()
            self._server.lost()

    def abort(self) -> asyncio.Task[None] | None:
        """Close at once; the task that was answering, if any."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        if self._transport is not None:
            self._transport.abort()
        return task

    def _next(self) -> None:
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end or self._task is not None:
            return
        line, *lines = head.decode("latin-1").split("\r\n")
        pairs = (item.partition(":") for item in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        length = int(headers.get("content-length") or 0)
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        request = FakeRequest(line.split(" ")[1], headers, _json(rest[:length]), rest[:length])
        self._task = asyncio.get_running_loop().create_task(self._answer(request, self._server.take(request)))

    async def _answer(self, request: FakeRequest, reply: FakeReply) -> None:
        assert self._transport is not None
        if delay := self._server.latency + reply.latency:
            await asyncio.sleep(delay)
        if reply.hang:
            await asyncio.Event().wait()
        try:
            whole = await self._send(self._transport.write, request, reply)
        except Exception as error:  # a reply that cannot be worded must reach the test, not hang it
            failed = FakeReply(status=500, error=f"FakeLM cannot send {reply}: {type(error).__name__}: {error}")
            whole = await self._send(self._transport.write, request, failed)
        self._task = None
        if whole:
            self._next()
        else:
            self._transport.close()

    async def _send(self, write: Callable[[bytes], None], request: FakeRequest, reply: FakeReply) -> bool:
        """Send one reply; False when the script cuts it short."""
        dialect = _DIALECTS.get(request.path.rpartition("/")[2], openai_replies)
        text = words_for(request, reply.text)
        number = next(self._server.ids)
        refused = reply.status >= 400 or reply.error is not None
        if request.body.get("stream") and not refused:
            return await self._stream(write, reply, dialect.events(request, reply, text, number))
        body = reply.body
        if body is None:
            body = dialect.error(reply) if refused else dialect.whole(request, reply, text, number)
        write(_head(reply.status, len(body), reply.headers) + body[: reply.cut])
        return reply.cut is None

    async def _stream(self, write: Callable[[bytes], None], reply: FakeReply, events: list[bytes]) -> bool:
        sent = 0
        write(_head(reply.status, None, reply.headers, "text/event-stream"))
        for part in [reply.body] if reply.body is not None else events:
            sent += len(part)
            if reply.cut is not None and sent > reply.cut:
                return False
            write(b"%x\r\n%b\r\n" % (len(part), part))
            if reply.chunk_delay:
                await asyncio.sleep(reply.chunk_delay)
        write(b"0\r\n\r\n")
        return True


def _head(status: int, length: int | None, headers: Mapping[str, str], kind: str = "application/json") -> bytes:
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}", f"content-type: {kind}"]
    lines.append("transfer-encoding: chunked" if length is None else f"content-length: {length}")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _json(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
