"""HTTP from threads: the calling thread does all the I/O, so Ctrl-C interrupts it at once and nothing outlives it.

Owns idle connections in deques whose append and pop are atomic: no lock, hence nothing that a fork or a finalizer
could find held. A forked child starts with none. When the interpreter exits, requests under way end with
LMTransportError, or it would wait for their threads. Not covered: more than one request on a connection at a time; at
exit, connections that are just being made (10 s at most).
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import socket
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator

from ...errors import LMError, LMTimeoutError, LMTransportError
from .endpoint import Endpoint, tls
from .http_message import Head, Reply, ResponseParser, kept_for

CONNECT_TIMEOUT_S = 10.0
IDLE_LIMIT_S = 55.0  # under the 60 s after which common load balancers close
IDLE_MOST = 64
_CHUNK = 64 * 1024
Again = Callable[[], object]


def untold() -> None:
    """Nobody wants to hear that a request was sent again."""


class BlockingHttp:
    """Sends requests from any number of threads; keeps idle connections per address."""

    def __init__(self) -> None:
        self.is_over = threading.Event()  # the interpreter exits
        self._idle: dict[tuple[object, ...], deque[_BlockingConnection]] = {}
        self._busy: set[_BlockingConnection] = set()
        self._pid = os.getpid()
        self._hooks = 0

    def send(self, target: Endpoint, head: bytes, body: bytes, timeout: float, again: Again | None = untold) -> Reply:
        """The whole response, within `timeout` seconds.

        A kept connection that the peer closed before it answered a byte is replaced by a new one, once: `again` is
        told. With None only a new connection is used, and nothing is sent twice.

        Raises:
            LMTimeoutError: the time is over.
            LMTransportError: no connection, or it broke.
        """
        deadline = time.monotonic() + timeout
        connection = self._begin(target, head, body, deadline, again)
        parser = connection.parser
        try:
            while not parser.complete:
                connection.receive(deadline)
        except BaseException:
            self._drop(connection)
            raise
        self._put(target, connection)
        got = parser.head
        assert got is not None
        return Reply(got, parser.take())

    def stream(
        self,
        target: Endpoint,
        head: bytes,
        body: bytes,
        timeout: float,
        until: float = math.inf,
        again: Again | None = untold,
    ) -> BlockingHttpStream:
        """The response as soon as its head is there; `again` as in `send`.

        `timeout` bounds the head and then each wait for more, `until` (on `time.monotonic()`'s clock) all of it.
        """
        connection = self._begin(target, head, body, min(until, time.monotonic() + timeout), again)
        return BlockingHttpStream(self, target, connection, timeout, until)

    def close(self) -> None:
        """Close the idle connections; requests under way are not disturbed and close theirs."""
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            while connections:
                connections.pop().close()

    def end(self) -> None:
        """End the requests under way, and refuse any other."""
        self.is_over.set()
        for connection in tuple(self._busy):
            connection.hang_up()

    def _begin(
        self, target: Endpoint, head: bytes, body: bytes, deadline: float, again: Again | None
    ) -> _BlockingConnection:
        """Send, and wait for the response's head."""
        self._watch_exit()
        data = b"".join((head, b"%d\r\n\r\n" % len(body), body))
        kept = None if again is None else self._take(target)
        if again is not None and kept is not None:
            try:
                return self._exchange(kept, target, data, deadline)
            except LMTransportError:
                if kept.answered or self.is_over.is_set():
                    raise
            again()
        return self._exchange(_connect(target, deadline), target, data, deadline)

    def _exchange(
        self, connection: _BlockingConnection, target: Endpoint, data: bytes, deadline: float
    ) -> _BlockingConnection:
        try:
            self._busy.add(connection)
            if self.is_over.is_set():  # looked at after it was added: `end` does it the other way round
                raise LMTransportError(f"{target.host} was not asked: the interpreter exits.")
            connection.parser = ResponseParser()
            connection.exchange(data, deadline)
        except BaseException:
            self._drop(connection)
            raise
        return connection

    def _take(self, target: Endpoint) -> _BlockingConnection | None:
        if self._pid != os.getpid():
            self._idle, self._pid = {}, os.getpid()
        connections = self._idle.get(target.pool)
        while connections:
            try:
                connection = connections.pop()
            except IndexError:  # another thread was faster
                return None
            if connection.is_fresh():
                return connection
            connection.close()
        return None

    def _drop(self, connection: _BlockingConnection) -> None:
        self._busy.discard(connection)
        connection.close()

    def _put(self, target: Endpoint, connection: _BlockingConnection) -> None:
        self._busy.discard(connection)
        head = connection.parser.head
        idle_s = kept_for(head, IDLE_LIMIT_S) if head is not None and connection.parser.reusable else 0.0
        if not idle_s or self._pid != os.getpid():
            connection.close()
            return
        connections = self._idle.get(target.pool)
        if connections is None:
            connections = self._idle.setdefault(target.pool, deque())
        if len(connections) >= IDLE_MOST:
            connection.close()
            return
        connection.idle_until = time.monotonic() + idle_s
        connections.append(connection)

    def _watch_exit(self) -> None:
        """Have `end` called when the interpreter exits, before it waits for its threads.

        Hooks run last in, first out, and an executor's waits for what its threads do: ours must come after it.
        """
        wanted = 2 if "concurrent.futures.thread" in sys.modules else 1
        if self._hooks < wanted:
            self._hooks = wanted
            end = weakref.WeakMethod(self.end)
            with contextlib.suppress(RuntimeError):  # it exits already
                threading._register_atexit(lambda: (found := end()) and found())  # type: ignore[attr-defined]


class BlockingHttpStream:
    """A response whose body is still coming; iterate it or close it. `head` is there already."""

    def __init__(
        self, http: BlockingHttp, target: Endpoint, connection: _BlockingConnection, wait: float, until: float
    ) -> None:
        assert connection.parser.head is not None
        self.head: Head = connection.parser.head
        self._http = http
        self._target = target
        self._connection: _BlockingConnection | None = connection
        self._wait = wait
        self._until = until

    def __iter__(self) -> Iterator[bytes]:
        connection = self._connection
        if connection is None:
            return
        parser = connection.parser
        try:
            while True:
                if data := parser.take():
                    yield data
                if parser.complete and not parser.chunks:
                    break
                connection.receive(min(self._until, time.monotonic() + self._wait))
        except BaseException:
            self.close()
            raise
        self._connection = None
        self._http._put(self._target, connection)

    def parts(self) -> Iterator[bytes]:
        """The body's parts; ask for them once."""
        return iter(self)

    def whole(self) -> Reply:
        """The response with all that is left of its body."""
        return Reply(self.head, b"".join(self))

    def close(self) -> None:
        """Close the connection at once unless the body was read to its end."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._http._drop(connection)

    def __del__(self) -> None:
        self.close()


class _BlockingConnection:
    """One socket and the parser of the response that it carries now."""

    __slots__ = ("answered", "host", "idle_until", "parser", "socket")

    def __init__(self, sock: socket.socket, host: str) -> None:
        self.socket = sock
        self.host = host
        self.parser = ResponseParser()
        self.idle_until = 0.0
        self.answered = False

    def exchange(self, data: bytes, deadline: float) -> None:
        """Send, and wait for the response's head; a peer may answer and close before it has read all (413, say)."""
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
        self.answered = False
        try:
            self.socket.settimeout(_left(deadline, self.host))
            self.socket.sendall(data)
        except TimeoutError:
            raise _timed_out(self.host) from None
        except OSError as error:
            raise _broken(self.host, error) from error

    def receive(self, deadline: float) -> None:
        try:
            self.socket.settimeout(_left(deadline, self.host))
            data = self.socket.recv(_CHUNK)
        except TimeoutError:
            raise _timed_out(self.host) from None
        except OSError as error:
            raise _broken(self.host, error) from error
        if data:
            self.answered = True
            self.parser.feed(data)
        else:
            self.parser.closed()

    def is_fresh(self) -> bool:
        """Whether a kept connection may be used: not idle for long, and nothing arrived meanwhile.

        An EOF, say; or bytes that nobody asked for, which would be taken for the answer to the next request.
        """
        if time.monotonic() > self.idle_until:
            return False
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return not poll.poll(0)

    def hang_up(self) -> None:
        """From another thread: whoever waits for it finds its end."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)  # not a TLS socket's own, which tears down its state

    def close(self) -> None:
        self.socket.close()


def _connect(target: Endpoint, deadline: float) -> _BlockingConnection:
    host = target.host
    try:
        sock = socket.create_connection(target.address, timeout=min(CONNECT_TIMEOUT_S, _left(deadline, host)))
    except TimeoutError:
        raise _timed_out(host) from None
    except OSError as error:
        raise _broken(host, error) from error
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if target.tunnel is not None:
            _open_tunnel(sock, target, deadline)
        if target.server_name is not None:
            sock = tls().wrap_socket(sock, server_hostname=target.server_name)
    except BaseException as error:
        sock.close()
        if isinstance(error, LMError) or not isinstance(error, OSError):
            raise
        raise (_timed_out(host) if isinstance(error, TimeoutError) else _broken(host, error)) from error
    return _BlockingConnection(sock, host)


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


def check_tunnel(target: Endpoint, answer: bytes) -> None:
    """Raises LMTransportError unless the proxy opened the tunnel."""
    status = answer.split(b"\r\n", 1)[0].split(b" ")[1:2]
    if status != [b"200"]:
        said = status[0].decode() if status and len(status[0]) == 3 and status[0].isdigit() else "no HTTP status"
        raise LMTransportError(f"The proxy did not open a tunnel to {target.host}: it answered {said}.")


def _left(deadline: float, host: str) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise _timed_out(host)
    return left


def _timed_out(host: str) -> LMTimeoutError:
    return LMTimeoutError(f"{host} did not answer in time.")


def _broken(host: str, error: OSError) -> LMTransportError:
    return LMTransportError(f"No answer from {host}: {error.strerror or type(error).__name__}.")
