"""`BlockingConnection`: one socket, used by one thread at a time; a signal's handler can interrupt every wait."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import TYPE_CHECKING, cast

from ...errors import LMCertificateError, LMError, LMTransportError
from .connection import HttpConnection, broken, timed_out
from .connection_pool import CONNECT_TIMEOUT_S
from .dialing import dial, dial_local
from .endpoint import Endpoint, check_tunnel
from .resolver import addresses
from .tls_settings import tls_context

if TYPE_CHECKING:
    import ssl

    from .nested_tls import NestedTls

_CHUNK = 64 * 1024


class BlockingConnection(HttpConnection):
    """One socket."""

    __slots__ = ("socket",)

    def __init__(self, sock: socket.socket | NestedTls, host: str) -> None:
        super().__init__(host)
        self.socket = sock

    def exchange(self, data: bytes, deadline: float) -> None:
        """Send, and wait for the response's head; a peer may answer and close before it has read all (413, say)."""
        self.begin()
        try:
            self.write(data, deadline)
        except LMTransportError as failure:
            try:
                while self.parser.head is None:
                    self.receive(deadline)
            except LMTransportError as told:  # perhaps the alert that says why
                raise told if isinstance(told, LMCertificateError) else failure from told
        while self.parser.head is None:
            self.receive(deadline)

    def write(self, data: bytes, deadline: float) -> None:
        try:
            self.socket.settimeout(_left(deadline, self.host))
            self.socket.sendall(data)
        except TimeoutError:
            raise timed_out(self.host) from None
        except OSError as error:
            raise broken(self.host, error) from error

    def receive(self, deadline: float) -> None:
        try:
            self.socket.settimeout(_left(deadline, self.host))
            data = self.socket.recv(_CHUNK)
        except TimeoutError:
            raise timed_out(self.host) from None
        except OSError as error:
            raise broken(self.host, error) from error
        if data:
            self.answered = True
            self.parser.feed(data)
        else:
            self.parser.closed()

    @property
    def is_reusable(self) -> bool:
        """Whether another request may follow the response."""
        return self.parser.reusable

    def is_fresh(self) -> bool:
        """Return whether a kept connection may be used: not idle for long, and nothing arrived meanwhile.

        An EOF, say; or bytes that nobody asked for, which would be taken for the answer to the next request.
        """
        if time.monotonic() > self.idle_until:
            return False
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return not poll.poll(0)

    def hang_up(self) -> None:
        """Shut the socket down from another thread: whoever waits on it sees its end."""
        lowest = cast(socket.socket, getattr(self.socket, "outer", self.socket))
        with contextlib.suppress(OSError):
            socket.socket.shutdown(lowest, socket.SHUT_RDWR)  # not a TLS socket's own, which tears down its state

    def close(self) -> None:
        self.socket.close()
        self.leave_place()


def connect(target: Endpoint, deadline: float) -> BlockingConnection:
    """Return a new connection, through the proxy's tunnel and TLS where the target has them.

    Raises:
        LMTimeoutError: the time is over.
        LMProxyError, LMCertificateError: refused, and so it would be again.
        LMTransportError: nobody listens there, or it broke.
    """
    name = target.name
    dialing_end = min(deadline, time.monotonic() + CONNECT_TIMEOUT_S)
    try:
        sock = _dialed(target, dialing_end)
    except LMError:  # which is an OSError too
        raise
    except TimeoutError:
        raise timed_out(name) from None
    except OSError as error:
        raise broken(name, error) from error
    try:
        return BlockingConnection(_secured(sock, target, dialing_end), name)
    except BaseException as error:  # also Ctrl-C: nobody else closes it
        sock.close()
        if isinstance(error, LMError) or not isinstance(error, OSError):
            raise
        raise (timed_out(name) if isinstance(error, TimeoutError) else broken(name, error)) from error


def _dialed(target: Endpoint, deadline: float) -> socket.socket:
    if isinstance(target.address, str):
        return dial_local(target.address, deadline)
    if target.destination is not None:
        from .socks import dial_socks  # for SOCKS proxies only

        return dial_socks(target, deadline)
    sock = dial(addresses(*target.address, deadline - time.monotonic()), deadline)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _secured(sock: socket.socket, target: Endpoint, deadline: float) -> socket.socket | NestedTls:
    """Return what requests are written to: the socket, in the tunnel and the TLS that the target has."""
    secured: socket.socket = sock
    try:
        sock.settimeout(_left(deadline, target.name))
        if target.proxy is not None and target.proxy.scheme == "https":
            try:
                secured = tls_context(target.tls).wrap_socket(sock, server_hostname=target.proxy.host)
            except OSError as error:
                raise _of_proxy(target, error) from error
        if target.tunnel is not None:
            _open_tunnel(secured, target, deadline)
        if target.server_name is None:
            return secured
        if secured is sock:
            return tls_context(target.tls).wrap_socket(sock, server_hostname=target.server_name)
        from .nested_tls import NestedTls

        outer = cast("ssl.SSLSocket", secured)
        return NestedTls(outer, tls_context(target.tls), target.server_name, _left(deadline, target.name))
    except BaseException:  # as in `connect`; a wrapped socket has taken the other's descriptor
        secured.close()
        raise


def _of_proxy(target: Endpoint, error: OSError) -> OSError:
    assert target.proxy is not None
    return error if isinstance(error, TimeoutError) else broken(f"the proxy {target.proxy.name}", error)


def _open_tunnel(sock: socket.socket, target: Endpoint, deadline: float) -> None:
    assert target.tunnel is not None
    answer = b""
    sock.settimeout(_left(deadline, target.name))
    sock.sendall(target.tunnel)
    while b"\r\n\r\n" not in answer and len(answer) < _CHUNK:
        sock.settimeout(_left(deadline, target.name))
        data = sock.recv(_CHUNK)
        if not data:
            break
        answer += data
    check_tunnel(target, answer)


def _left(deadline: float, host: str) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise timed_out(host)
    return left
