"""`AsyncConnection`: one transport of an event loop, and the parser of its current response."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING, cast

from ...errors import LMError, LMTimeoutError, LMTransportError
from .async_resolver import aaddresses
from .connection import HttpConnection, broken, timed_out
from .dialing import BUSY_PAUSE_S, LEAD_S
from .endpoint import Endpoint, check_tunnel
from .http_message import HEAD_LIMIT, Head
from .tls_settings import tls_context

if TYPE_CHECKING:
    import ssl

_HIGH_WATER = 256 * 1024  # body bytes waiting for a slow reader before the socket is left alone


class AsyncConnection(HttpConnection, asyncio.Protocol):
    """One transport."""

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.is_open = False
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
    def is_reusable(self) -> bool:
        """Whether another request may follow the response."""
        return self.is_open and self.parser.reusable and self.parser.complete

    def is_fresh(self) -> bool:
        """Return whether a kept connection may be used: the peer did not close it, and it was not idle for long."""
        return self.is_open and time.monotonic() < self.idle_until

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
            self.close()
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
        self.leave_place()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._ended(exc)

    def request(self, data: bytes, deadline: float, *, whole: bool) -> asyncio.Future[None]:
        """Send; the returned future is done when the whole response is there, or its head."""
        assert self._transport is not None
        self.begin()
        self._whole = whole
        self._held = 0
        self._failure = None
        self._transport.write(data)
        if not self.is_open:
            raise LMTransportError(f"No answer from {self.host}: the connection was closed.")
        return self._wait(deadline - time.monotonic())

    async def more(self, deadline: float) -> bytes | None:
        """Return the next part of the body, None at its end."""
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

    def close(self) -> None:
        """Close at once; nothing is flushed."""
        self.is_open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()
        self.leave_place()

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    async def start_tls(self, context: ssl.SSLContext, server_name: str) -> None:
        assert self._transport is not None
        secured = await self._loop.start_tls(self._transport, self, context, server_hostname=server_name)
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
            waiter.set_exception(timed_out(self.host))

    def _wake(self, error: LMError | None) -> None:
        waiter = self._waiter
        if waiter is None or waiter.done():
            self._failure = self._failure or error  # nobody waits now: the next read raises it
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
            self._wake(broken(self.host, exc) if isinstance(exc, OSError) else error)
        else:
            self._wake(None)


async def connect(target: Endpoint, timeout: float) -> AsyncConnection:
    """Return a new connection, through the proxy's tunnel and TLS where the target has them.

    Raises:
        LMTimeoutError: the time is over.
        LMProxyError, LMCertificateError: refused, and so it would be again.
        LMTransportError: nobody listens there, or it broke.
    """
    name = target.name
    try:
        async with asyncio.timeout(timeout):
            return await _secured(await _dialed(target), target, timeout)
    except LMError:  # which is an OSError too
        raise
    except TimeoutError:
        raise LMTimeoutError(f"{name} could not be reached in {timeout:.3g} s.") from None
    except OSError as error:
        raise broken(name, error) from error


async def _dialed(target: Endpoint) -> socket.socket:
    if isinstance(target.address, str):
        return await _dialed_local(target.address)
    if target.destination is not None:
        from .socks import adial_socks  # for SOCKS proxies only

        return await adial_socks(target)
    from aiohappyeyeballs import start_connection  # 0.5 ms

    found = await aaddresses(*target.address)
    return await start_connection(found, happy_eyeballs_delay=LEAD_S)


async def _dialed_local(path: str) -> socket.socket:
    """Return a socket that is connected to a Unix socket; one whose queue is full is tried again."""
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            sock.connect(path)
            return sock
        except BlockingIOError:
            sock.close()
        except BaseException:  # also a cancellation: the descriptor would leak
            sock.close()
            raise
        await asyncio.sleep(BUSY_PAUSE_S)


async def _secured(sock: socket.socket, target: Endpoint, timeout: float) -> AsyncConnection:
    """Return the connection over a socket, in the tunnel and the TLS that the target has."""
    loop = asyncio.get_running_loop()
    name, proxy = target.name, target.proxy
    through_tls = proxy is not None and proxy.scheme == "https"
    at_once = proxy.host if proxy is not None and through_tls else None if target.tunnel else target.server_name
    context = tls_context(target.tls) if at_once else None
    try:
        if sock.family == socket.AF_UNIX:
            _, connection = await loop.create_unix_connection(lambda: AsyncConnection(name), sock=sock)
        else:
            _, connection = await loop.create_connection(
                lambda: AsyncConnection(name), sock=sock, ssl=context, server_hostname=at_once
            )
    except BaseException as error:  # a task that is cancelled, too: nobody else closes it
        sock.close()
        if proxy is not None and through_tls and isinstance(error, OSError) and not isinstance(error, TimeoutError):
            raise broken(f"the proxy {proxy.name}", error) from error
        raise
    try:
        if target.tunnel is not None:
            await _open_tunnel(connection, target, timeout)
        if target.server_name is not None and (through_tls or target.tunnel is not None):
            await connection.start_tls(tls_context(target.tls), target.server_name)
    except BaseException:  # also a task that is cancelled, or out of time, halfway
        connection.close()
        raise
    return connection


async def _open_tunnel(connection: AsyncConnection, target: Endpoint, timeout: float) -> None:
    assert target.tunnel is not None
    raw = connection.raw = bytearray()
    connection.write(target.tunnel)
    while b"\r\n\r\n" not in raw and connection.is_open and len(raw) <= HEAD_LIMIT:
        await connection.wait_raw(timeout)
    check_tunnel(target, bytes(raw))
    connection.raw = None
