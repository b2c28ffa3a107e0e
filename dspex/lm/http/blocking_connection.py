"""`BlockingConnection`: one socket, used by one thread at a time; a signal's handler can interrupt every wait."""

from __future__ import annotations

import contextlib
import select
import socket
import time

from ...errors import LMError, LMTransportError
from .connection import HttpConnection, broken, timed_out
from .connection_pool import CONNECT_TIMEOUT_S
from .endpoint import Endpoint, check_tunnel, tls

_CHUNK = 64 * 1024


class BlockingConnection(HttpConnection):
    """One socket."""

    __slots__ = ("socket",)

    def __init__(self, sock: socket.socket, host: str) -> None:
        super().__init__(host)
        self.socket = sock

    def exchange(self, data: bytes, deadline: float) -> None:
        """Send, and wait for the response's head; a peer may answer and close before it has read all (413, say)."""
        self.begin()
        try:
            self.write(data, deadline)
        except LMTransportError:
            with contextlib.suppress(LMTransportError):
                while self.parser.head is None:
                    self.receive(deadline)
            if self.parser.head is None:
                raise
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
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)  # not a TLS socket's own, which tears down its state

    def close(self) -> None:
        self.socket.close()


def connect(target: Endpoint, deadline: float) -> BlockingConnection:
    """Return a new connection, through the proxy's tunnel and TLS where the target has them.

    Raises:
        LMTimeoutError: the time is over.
        LMTransportError: nobody listens there, or it broke.
    """
    host = target.host
    try:
        sock = socket.create_connection(target.address, timeout=min(CONNECT_TIMEOUT_S, _left(deadline, host)))
    except TimeoutError:
        raise timed_out(host) from None
    except OSError as error:
        raise broken(host, error) from error
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if target.tunnel is not None:
            _open_tunnel(sock, target, deadline)
        if target.server_name is not None:
            sock = tls().wrap_socket(sock, server_hostname=target.server_name)
    except BaseException as error:  # also Ctrl-C: nobody else closes it
        sock.close()
        if isinstance(error, LMError) or not isinstance(error, OSError):
            raise
        raise (timed_out(host) if isinstance(error, TimeoutError) else broken(host, error)) from error
    return BlockingConnection(sock, host)


def _open_tunnel(sock: socket.socket, target: Endpoint, deadline: float) -> None:
    assert target.tunnel is not None
    answer = b""
    sock.settimeout(_left(deadline, target.host))
    sock.sendall(target.tunnel)
    while b"\r\n\r\n" not in answer and len(answer) < _CHUNK:
        sock.settimeout(_left(deadline, target.host))
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
