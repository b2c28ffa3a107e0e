"""HTTP on asyncio: each event loop has its own idle connections, and everything runs on that loop's thread.

A cancelled request closes its connection at once. A loop that ends by `asyncio.run` closes its idle connections on
the way out: an asynchronous generator per loop is parked, and `shutdown_asyncgens` closes it. Not covered: more than
one request on a connection at a time; a loop that is dropped without `shutdown_asyncgens` (use `aclose`).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator
from typing import cast

from ...errors import LMError, LMTimeoutError, LMTransportError
from .blocking_client import (
    CONNECT_TIMEOUT_S,
    IDLE_LIMIT_S,
    IDLE_MOST,
    Again,
    check_tunnel,
    untold,
)
from .endpoint import Endpoint, tls
from .http_message import Head, Reply, ResponseParser, kept_for

_HIGH_WATER = 256 * 1024  # body bytes waiting for a slow reader before the socket is left alone


class AsyncHttp:
    """Sends requests from any number of event loops; keeps idle connections per loop and address."""

    def __init__(self) -> None:
        self._pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _ConnectionPool] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()
        self._pid = os.getpid()

    async def send(
        self, target: Endpoint, head: bytes, body: bytes, timeout: float, again: Again | None = untold
    ) -> Reply:
        """The whole response, within `timeout` seconds; `again` as in `BlockingHttp.send`.

        Raises:
            LMTimeoutError: the time is over.
            LMTransportError: no connection, or it broke.
        """
        pool = self._pools.get(asyncio.get_running_loop()) or await self._new_pool()
        connection = await self._request(pool, target, head, body, timeout, again, whole=True)
        got, data = connection.finish()
        pool.put(target, connection)
        return Reply(got, data)

    async def stream(
        self,
        target: Endpoint,
        head: bytes,
        body: bytes,
        timeout: float,
        until: float = math.inf,
        again: Again | None = untold,
    ) -> AsyncHttpStream:
        """The response as soon as its head is there.

        `timeout` bounds the head and then each wait for more, `until` (on `time.monotonic()`'s clock) all of it.
        """
        pool = self._pools.get(asyncio.get_running_loop()) or await self._new_pool()
        connection = await self._request(pool, target, head, body, timeout, again, whole=False)
        return AsyncHttpStream(pool, target, connection, timeout, until)

    async def aclose(self) -> None:
        """Close this loop's idle connections."""
        pool = self._pools.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            await pool.guard.aclose()

    def close(self) -> None:
        """Close the idle connections of every loop, each on its own thread."""
        pools, self._pools = self._pools, weakref.WeakKeyDictionary()
        if self._pid != os.getpid():
            return
        for loop, pool in list(pools.items()):
            if loop.is_running():
                with contextlib.suppress(RuntimeError):  # closed between the two lines
                    loop.call_soon_threadsafe(pool.close)
            elif not loop.is_closed():
                pool.close()

    def forget(self) -> None:
        """In a forked child: leave the parent's loops and connections alone."""
        self._pools = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()
        self._pid = os.getpid()

    async def _new_pool(self) -> _ConnectionPool:
        loop = asyncio.get_running_loop()
        with self._lock:
            pool = self._pools.setdefault(loop, _ConnectionPool())
        if not pool.guarded:
            pool.guarded = True
            await pool.guard.__anext__()
        return pool

    async def _request(
        self,
        pool: _ConnectionPool,
        target: Endpoint,
        head: bytes,
        body: bytes,
        timeout: float,
        again: Again | None,
        *,
        whole: bool,
    ) -> _AsyncConnection:
        data = b"".join((head, b"%d\r\n\r\n" % len(body), body))
        deadline = time.monotonic() + timeout
        kept = None if again is None else pool.take(target)
        if again is not None and kept is not None:
            try:
                await kept.request(data, deadline, whole=whole)
                return kept
            except LMTransportError:
                kept.abort()
                if kept.answered:
                    raise
            except BaseException:
                kept.abort()
                raise
            again()
        connection = await _connect(target, min(CONNECT_TIMEOUT_S, max(0.0, deadline - time.monotonic())))
        try:
            await connection.request(data, deadline, whole=whole)
        except BaseException:
            connection.abort()
            raise
        return connection


class AsyncHttpStream:
    """A response whose body is still coming; iterate it or close it. `head` is there already."""

    def __init__(
        self, pool: _ConnectionPool, target: Endpoint, connection: _AsyncConnection, wait: float, until: float
    ) -> None:
        assert connection.parser.head is not None
        self.head: Head = connection.parser.head
        self._pool = pool
        self._target = target
        self._connection: _AsyncConnection | None = connection
        self._wait = wait
        self._until = until

    async def __aiter__(self) -> AsyncIterator[bytes]:
        connection = self._connection
        if connection is None:
            return
        try:
            while (data := await connection.more(min(self._until, time.monotonic() + self._wait))) is not None:
                yield data
        except BaseException:
            self.close()
            raise
        self._connection = None
        connection.finish()
        self._pool.put(self._target, connection)

    def parts(self) -> AsyncIterator[bytes]:
        """The body's parts; ask for them once."""
        return aiter(self)

    async def whole(self) -> Reply:
        """The response with all that is left of its body."""
        return Reply(self.head, b"".join([data async for data in self]))

    def close(self) -> None:
        """Close the connection at once unless the body was read to its end. On the loop's thread."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()


class _ConnectionPool:
    """One loop's idle connections."""

    def __init__(self) -> None:
        self._idle: dict[tuple[object, ...], list[_AsyncConnection]] = {}
        self.guarded = False
        self.guard = self._guard()

    def take(self, target: Endpoint) -> _AsyncConnection | None:
        connections = self._idle.get(target.pool)
        while connections:
            connection = connections.pop()
            if connection.is_open and time.monotonic() < connection.idle_until:
                return connection
            connection.abort()
        return None

    def put(self, target: Endpoint, connection: _AsyncConnection) -> None:
        connections = self._idle.setdefault(target.pool, [])
        head = connection.parser.head
        idle_s = kept_for(head, IDLE_LIMIT_S) if head is not None and connection.reusable else 0.0
        if not idle_s or len(connections) >= IDLE_MOST * 4:
            connection.abort()
            return
        connection.idle_until = time.monotonic() + idle_s
        connections.append(connection)

    def close(self) -> None:
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.abort()

    async def _guard(self) -> AsyncGenerator[None, None]:
        """Parked until the loop shuts its asynchronous generators down; then closes what is idle."""
        try:
            yield
        finally:
            self.close()
            await asyncio.sleep(0)  # the transports finish their closing on the loop's next turn


class _AsyncConnection(asyncio.Protocol):
    """One transport and the parser of the response that it carries now."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.parser = ResponseParser()
        self.answered = False
        self.is_open = False
        self.idle_until = 0.0
        self.raw: bytearray | None = None  # collects a proxy's answer to CONNECT instead of a response
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._deadline = 0.0  # by the loop's clock, of the wait that is under way
        self._timer: asyncio.TimerHandle | None = None
        self._whole = False
        self._held = 0
        self._paused = False
        self._failure: LMError | None = None  # of the response, when it came while nobody waited

    @property
    def reusable(self) -> bool:
        return self.is_open and self.parser.reusable and self.parser.complete

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        self.answered = True
        if self.raw is not None:
            self.raw += data
            self._wake(None)
            return
        parser = self.parser
        if parser.complete:  # nobody asked: the connection is out of step
            self.abort()
            return
        try:
            parser.feed(data)
        except LMError as error:
            self._wake(error)
            return
        if parser.complete:
            self._wake(None)
        elif not self._whole and parser.head is not None:
            self._hold(len(data))
            self._wake(None)

    def eof_received(self) -> bool:
        self.is_open = False  # before the transport says so: nobody may take it meanwhile
        self._ended(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._ended(exc)

    def request(self, data: bytes, deadline: float, *, whole: bool) -> asyncio.Future[None]:
        """Send; the future is done when the whole response is there, or its head."""
        assert self._transport is not None
        self.parser = ResponseParser()
        self.answered = False
        self._whole = whole
        self._held = 0
        self._failure = None
        self._transport.write(data)
        if not self.is_open:
            raise LMTransportError(f"No answer from {self.host}: the connection was closed.")
        return self._wait(deadline - time.monotonic())

    async def more(self, deadline: float) -> bytes | None:
        """The next part of the body, None at its end."""
        while True:
            if data := self.parser.take():
                self._held = 0
                if self._paused and self._transport is not None and self.is_open:
                    self._paused = False
                    self._transport.resume_reading()
                return data
            if self.parser.complete:
                return None
            if self._failure is not None:
                raise self._failure
            await self._wait(deadline - time.monotonic())

    def wait_raw(self, timeout: float) -> asyncio.Future[None]:
        """Wait until anything arrives (a proxy's answer)."""
        return self._wait(timeout)

    def finish(self) -> tuple[Head, bytes]:
        head = self.parser.head
        assert head is not None
        return head, self.parser.take()

    def abort(self) -> None:
        """Close at once; nothing is flushed."""
        self.is_open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    async def start_tls(self, server_name: str) -> None:
        assert self._transport is not None
        secured = await self._loop.start_tls(self._transport, self, tls(), server_hostname=server_name)
        assert secured is not None
        self._transport = secured

    def _wait(self, timeout: float) -> asyncio.Future[None]:
        """A future for what comes next; not a coroutine, which would be one more frame to pass at each wake-up."""
        waiter = self._waiter = self._loop.create_future()
        deadline = self._deadline = self._loop.time() + timeout
        timer = self._timer
        if timer is None or timer.when() > deadline:
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(deadline, self._tick)
        return waiter

    def _tick(self) -> None:
        """The timer fired; it is not moved for each request (a tenth of a request's cost), so look what is due."""
        self._timer = None
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._tick)
        else:
            waiter.set_exception(LMTimeoutError(f"{self.host} did not answer in time."))

    def _wake(self, error: LMError | None) -> None:
        waiter = self._waiter
        if waiter is None or waiter.done():
            self._failure = self._failure or error  # nobody waits now: whoever reads on hears of it
            return
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)

    def _hold(self, count: int) -> None:
        self._held += count
        if self._held > _HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _ended(self, exc: Exception | None) -> None:
        try:
            self.parser.closed()
        except LMTransportError as error:
            reason = getattr(exc, "strerror", None) or (type(exc).__name__ if exc else None)
            self._wake(LMTransportError(f"No answer from {self.host}: {reason}.") if reason else error)
        else:
            self._wake(None)


async def _connect(target: Endpoint, timeout: float) -> _AsyncConnection:
    host = target.host
    loop = asyncio.get_running_loop()
    secure = tls() if target.server_name is not None and target.tunnel is None else None
    try:
        async with asyncio.timeout(timeout):
            _, connection = await loop.create_connection(
                lambda: _AsyncConnection(host),
                *target.address,
                ssl=secure,
                server_hostname=target.server_name if secure else None,
            )
            if target.tunnel is not None:
                await _open_tunnel(connection, target, timeout)
            return connection
    except LMError:  # which is an OSError too
        raise
    except TimeoutError:
        raise LMTimeoutError(f"{host} could not be reached in {timeout:g} s.") from None
    except OSError as error:
        # Without strerror: several addresses were tried (localhost is two), and the text tells what each said.
        raise LMTransportError(
            f"No answer from {host}: {error.strerror or str(error) or type(error).__name__}."
        ) from error


async def _open_tunnel(connection: _AsyncConnection, target: Endpoint, timeout: float) -> None:
    assert target.tunnel is not None
    raw = connection.raw = bytearray()
    try:
        connection.write(target.tunnel)
        while b"\r\n\r\n" not in raw and connection.is_open:
            await connection.wait_raw(timeout)
        check_tunnel(target, bytes(raw))
        connection.raw = None
        if target.server_name is not None:
            await connection.start_tls(target.server_name)
    except BaseException:
        connection.abort()
        raise
