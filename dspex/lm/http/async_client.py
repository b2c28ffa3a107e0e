"""Send HTTP requests on asyncio: each event loop has its own idle connections, all used on its thread.

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
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping

from ...errors import LMLocalLimitError, LMTransportError
from .async_connection import AsyncConnection, connect
from .connection import no_place
from .connection_pool import (
    CONNECT_TIMEOUT_S,
    IDLE_MOST,
    LIMIT_PAUSE_S,
    PLACE_WAIT_MOST_S,
    ConnectionPool,
    OnConnect,
    OnResend,
    ignore_connect,
    ignore_resend,
)
from .endpoint import Endpoint
from .endpoint_places import Place
from .http_message import Reply, whole_request
from .http_stream import HttpStream

SLICE = 16 * 1024  # bytes of a stream that are given to its reader at once: of the smallest events, 15 ms


class AsyncHttp:
    """Sends requests from any number of event loops; keeps idle connections per loop and address."""

    def __init__(self, on_connect: OnConnect = ignore_connect) -> None:
        self._on_connect = on_connect
        self._pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopPool] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()
        self._pid = os.getpid()

    async def send(
        self,
        target: Endpoint,
        head: bytes,
        body: bytes,
        timeout: float,
        on_resend: OnResend | None = ignore_resend,
        until: float = math.inf,
    ) -> Reply:
        """Return the whole response; the arguments are those of `BlockingHttp.send`.

        Raises:
            LMTimeoutError: the time is over.
            LMTransportError: no connection, or it broke.
        """
        pool = self._pools.get(asyncio.get_running_loop()) or await self._new_pool()
        connection = await self._request(pool, target, head, body, timeout, until, on_resend, whole=True)
        got, data = connection.finish()
        pool.connections.put(target, connection)
        return Reply(got, data)

    async def stream(
        self,
        target: Endpoint,
        head: bytes,
        body: bytes,
        timeout: float,
        until: float = math.inf,
        on_resend: OnResend | None = ignore_resend,
    ) -> AsyncHttpStream:
        """Return the response as soon as its head is there.

        `timeout` bounds the head and then each wait for more, `until` (on `time.monotonic()`'s clock) all of it.
        """
        pool = self._pools.get(asyncio.get_running_loop()) or await self._new_pool()
        connection = await self._request(pool, target, head, body, timeout, until, on_resend, whole=False)
        return AsyncHttpStream(pool, target, connection, timeout, until)

    async def aclose(self) -> None:
        """Close this loop's idle connections."""
        pool = self._pools.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            await pool.guard.aclose()

    def close(self) -> None:
        """Close the idle connections of every loop, each on its own thread."""
        pools, self._pools = self._pools, weakref.WeakKeyDictionary()
        self._close(pools, ConnectionPool.close)

    def close_idle(self, host: str, port: int) -> None:
        """Close the idle connections of every loop to one address, each on its own thread."""
        self._close(self._pools, lambda connections: connections.close_idle((host, port)))

    def _close(
        self,
        pools: Mapping[asyncio.AbstractEventLoop, _LoopPool],
        close: Callable[[ConnectionPool[AsyncConnection]], None],
    ) -> None:
        if self._pid != os.getpid():
            return
        here = asyncio._get_running_loop()
        for loop, pool in list(pools.items()):
            if loop.is_running() and loop is not here:
                with contextlib.suppress(RuntimeError):  # closed between the two lines
                    loop.call_soon_threadsafe(close, pool.connections)
            elif not loop.is_closed():
                close(pool.connections)

    def after_fork(self) -> None:
        """In a forked child: leave the parent's loops and connections alone."""
        self._pools = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()
        self._pid = os.getpid()

    async def _new_pool(self) -> _LoopPool:
        loop = asyncio.get_running_loop()
        with self._lock:
            pool = self._pools.setdefault(loop, _LoopPool())
        if not pool.is_guarded:
            pool.is_guarded = True
            await pool.guard.__anext__()
        return pool

    async def _request(
        self,
        pool: _LoopPool,
        target: Endpoint,
        head: bytes,
        body: bytes,
        timeout: float,
        until: float,
        on_resend: OnResend | None,
        *,
        whole: bool,
    ) -> AsyncConnection:
        data = whole_request(head, body)
        place: Place | None = None
        kept = None if on_resend is None else pool.connections.take(target)
        if kept is None:
            kept, place = await _place(pool, target, until, may_be_kept=on_resend is not None)
        deadline = min(until, time.monotonic() + timeout)
        if on_resend is not None and kept is not None:
            try:
                await kept.request(data, deadline, whole=whole)
                return kept
            except LMTransportError:
                kept.close()
                if kept.answered:
                    raise
            except BaseException:  # a cancelled task: half a response serves no other request
                kept.close()
                raise
            on_resend()
            _, place = await _place(pool, target, deadline, may_be_kept=False)
        assert place is not None
        self._on_connect(target)
        connection = await _connected(pool, target, place, deadline)
        try:
            await connection.request(data, deadline, whole=whole)
        except BaseException:  # as above
            connection.close()
            raise
        return connection


async def _place(
    pool: _LoopPool, target: Endpoint, until: float, *, may_be_kept: bool
) -> tuple[AsyncConnection | None, Place | None]:
    """Return a connection that was put back, or a place for a new one; wait for either."""
    endpoint = pool.connections.endpoint(target)
    places = endpoint.places
    if not places.waiters and (place := endpoint.place()) is not None:
        return None, place
    began = time.monotonic()
    end = min(until, began + PLACE_WAIT_MOST_S)
    waiter = _WaitingTask()
    places.waiters.append(waiter)
    try:
        while not any(found := endpoint.offered(waiter, may_be_kept=may_be_kept)):
            if not await waiter.wait(end - time.monotonic()):
                raise no_place(target.name, places.most, time.monotonic() - began)
    finally:
        places.leave(waiter)
    return found


async def _connected(pool: _LoopPool, target: Endpoint, place: Place, deadline: float) -> AsyncConnection:
    """Return a new connection; where the process has no descriptor left, wait a little for one."""
    patience_end = min(deadline, time.monotonic() + CONNECT_TIMEOUT_S)
    try:
        while True:
            left = min(CONNECT_TIMEOUT_S, max(0.0, deadline - time.monotonic()))
            try:
                connection = await connect(target, left)
            except LMLocalLimitError:
                pool.connections.close()
                if time.monotonic() + LIMIT_PAUSE_S >= patience_end:
                    raise
                await asyncio.sleep(LIMIT_PAUSE_S)
            else:
                connection.give_back = place
                return connection
    except BaseException:  # also a cancelled task: the place is somebody else's
        place()
        raise


class _WaitingTask:
    """A task that waits for a place."""

    __slots__ = ("_woken", "is_woken")

    def __init__(self) -> None:
        self.is_woken = False
        self._woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait(self, timeout: float) -> bool:
        """Wait until it is woken; False when the time is over."""
        self._woken = asyncio.get_running_loop().create_future()
        if self.is_woken:
            return True
        await asyncio.wait((self._woken,), timeout=max(0.0, timeout))
        return self._woken.done()

    def wake(self) -> None:
        self.is_woken = True
        if not self._woken.done():
            self._woken.set_result(None)


class AsyncHttpStream(HttpStream[AsyncConnection]):
    """A response for one task."""

    def __init__(
        self, pool: _LoopPool, target: Endpoint, connection: AsyncConnection, wait: float, until: float
    ) -> None:
        super().__init__(connection, wait, until)
        self._pool = pool
        self._target = target

    async def __aiter__(self) -> AsyncIterator[bytes]:
        connection = self._connection
        if connection is None:
            return
        try:
            while (data := await connection.more(self._deadline())) is not None:
                for at in range(0, len(data), SLICE):
                    yield data[at : at + SLICE]
                    if at + SLICE < len(data):
                        await asyncio.sleep(
                            0
                        )  # reading a slice may be a thousand events: others on the loop come between
        except BaseException:  # as above, and a reader that ends early
            self.close()
            raise
        self._connection = None
        connection.finish()
        self._pool.connections.put(self._target, connection)

    def parts(self) -> AsyncIterator[bytes]:
        """Return the body's parts; may be called once."""
        return aiter(self)

    async def whole(self) -> Reply:
        """Return the response with all that is left of its body."""
        return Reply(self.head, b"".join([data async for data in self]))

    def close(self) -> None:
        """Close the connection at once unless the body was read to its end. On the loop's thread."""
        connection = self._release()
        if connection is not None:
            connection.close()


class _LoopPool:
    """One event loop's idle connections."""

    def __init__(self) -> None:
        self.connections = ConnectionPool[AsyncConnection](most=IDLE_MOST * 4)
        self.is_guarded = False
        self.guard = self._guard()

    async def _guard(self) -> AsyncGenerator[None, None]:
        """Parked until the loop shuts its asynchronous generators down; then closes what is idle."""
        try:
            yield
        finally:
            self.connections.close()
            await asyncio.sleep(0)  # the transports finish their closing on the loop's next turn
