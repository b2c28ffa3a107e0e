"""Send HTTP requests from threads: the caller does the I/O, so Ctrl-C interrupts at once and nothing outlives it.

A forked child starts without connections. When the interpreter exits, requests under way end with
LMTransportError, or it would wait for their threads. Not covered: more than one request on a connection at a time; at
exit, connections that are just being made (10 s at most).
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator

from ...errors import LMTransportError
from .blocking_connection import BlockingConnection, connect
from .connection_pool import ConnectionPool, OnResend, ignore_resend
from .endpoint import Endpoint
from .http_message import Reply, whole_request
from .http_stream import HttpStream


class BlockingHttp:
    """Sends requests from any number of threads; keeps idle connections per address."""

    def __init__(self) -> None:
        self.is_over = threading.Event()  # the interpreter exits
        self._pool = ConnectionPool[BlockingConnection]()
        self._busy: set[BlockingConnection] = set()
        self._pid = os.getpid()
        self._hooks = 0

    def send(
        self, target: Endpoint, head: bytes, body: bytes, timeout: float, on_resend: OnResend | None = ignore_resend
    ) -> Reply:
        """Return the whole response, within `timeout` seconds.

        A kept connection that the peer closed before it answered a byte is replaced by a new one, once, and `on_resend`
        is called. With None only a new connection is used, and nothing is sent twice.

        Raises:
            LMTimeoutError: the time is over.
            LMTransportError: no connection, or it broke.
        """
        deadline = time.monotonic() + timeout
        connection = self._begin(target, head, body, deadline, on_resend)
        parser = connection.parser
        try:
            while not parser.complete:
                connection.receive(deadline)
        except BaseException:  # also Ctrl-C: a connection with half a response serves no other request
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
        on_resend: OnResend | None = ignore_resend,
    ) -> BlockingHttpStream:
        """Return the response as soon as its head is there; `on_resend` as in `send`.

        `timeout` bounds the head and then each wait for more, `until` (on `time.monotonic()`'s clock) all of it.
        """
        connection = self._begin(target, head, body, min(until, time.monotonic() + timeout), on_resend)
        return BlockingHttpStream(self, target, connection, timeout, until)

    def close(self) -> None:
        """Close the idle connections; requests under way are not disturbed and close theirs."""
        self._pool.close()

    def close_idle(self, host: str, port: int) -> None:
        """Close the idle connections to one address."""
        self._pool.close_idle((host, port))

    def end(self) -> None:
        """End the requests under way, and refuse any other."""
        self.is_over.set()
        for connection in tuple(self._busy):
            connection.hang_up()

    def _begin(
        self, target: Endpoint, head: bytes, body: bytes, deadline: float, on_resend: OnResend | None
    ) -> BlockingConnection:
        """Send, and wait for the response's head."""
        self._watch_exit()
        data = whole_request(head, body)
        kept = None if on_resend is None else self._take(target)
        if on_resend is not None and kept is not None:
            try:
                return self._exchange(kept, target, data, deadline)
            except LMTransportError:
                if kept.answered or self.is_over.is_set():
                    raise
            on_resend()
        return self._exchange(connect(target, deadline), target, data, deadline)

    def _exchange(
        self, connection: BlockingConnection, target: Endpoint, data: bytes, deadline: float
    ) -> BlockingConnection:
        try:
            self._busy.add(connection)
            if self.is_over.is_set():  # looked at after it was added: `end` does it the other way round
                raise LMTransportError(f"{target.host} was not asked: the interpreter exits.")
            connection.exchange(data, deadline)
        except BaseException:  # as in `send`
            self._drop(connection)
            raise
        return connection

    def _take(self, target: Endpoint) -> BlockingConnection | None:
        if self._pid != os.getpid():
            self._pool, self._pid = ConnectionPool(), os.getpid()
        return self._pool.take(target)

    def _drop(self, connection: BlockingConnection) -> None:
        self._busy.discard(connection)
        connection.close()

    def _put(self, target: Endpoint, connection: BlockingConnection) -> None:
        self._busy.discard(connection)
        if self._pid != os.getpid():
            connection.close()
        else:
            self._pool.put(target, connection)

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


class BlockingHttpStream(HttpStream[BlockingConnection]):
    """A response for one thread."""

    def __init__(
        self, http: BlockingHttp, target: Endpoint, connection: BlockingConnection, wait: float, until: float
    ) -> None:
        super().__init__(connection, wait, until)
        self._http = http
        self._target = target

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
                connection.receive(self._deadline())
        except BaseException:  # as in `send`, and a reader that ends early
            self.close()
            raise
        self._connection = None
        self._http._put(self._target, connection)

    def parts(self) -> Iterator[bytes]:
        """Return the body's parts; may be called once."""
        return iter(self)

    def whole(self) -> Reply:
        """Return the response with all that is left of its body."""
        return Reply(self.head, b"".join(self))

    def close(self) -> None:
        """Close the connection at once unless the body was read to its end."""
        connection = self._release()
        if connection is not None:
            self._http._drop(connection)

    def __del__(self) -> None:
        self.close()
