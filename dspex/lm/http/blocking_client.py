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

from ...errors import LMLocalLimitError, LMTransportError
from .blocking_connection import BlockingConnection, connect
from .connection import no_place
from .connection_pool import (
    CONNECT_TIMEOUT_S,
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


class BlockingHttp:
    """Sends requests from any number of threads; keeps idle connections per address."""

    def __init__(self, on_connect: OnConnect = ignore_connect) -> None:
        self._on_connect = on_connect
        self.is_over = threading.Event()  # the interpreter exits
        self._pool = ConnectionPool[BlockingConnection]()
        self._busy: set[BlockingConnection] = set()
        self._pid = os.getpid()
        self._hooks = 0

    def send(
        self,
        target: Endpoint,
        head: bytes,
        body: bytes,
        timeout: float,
        on_resend: OnResend | None = ignore_resend,
        until: float = math.inf,
    ) -> Reply:
        """Return the whole response, within `timeout` seconds of having a place among the endpoint's connections.

        The wait for a place ends at `until` (on `time.monotonic()`'s clock), at the latest after ten minutes.
        A kept connection that the peer closed before it answered a byte is replaced by a new one, once, and `on_resend`
        is called. With None only a new connection is used, and nothing is sent twice.

        Raises:
            LMTimeoutError: the time is over.
            LMTransportError: no connection, or it broke.
        """
        connection, deadline = self._begin(target, head, body, timeout, until, on_resend)
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
        connection, _ = self._begin(target, head, body, timeout, until, on_resend)
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
        self._pool.wake_all()

    def _begin(
        self, target: Endpoint, head: bytes, body: bytes, timeout: float, until: float, on_resend: OnResend | None
    ) -> tuple[BlockingConnection, float]:
        """Send, and wait for the response's head; return the connection and the request's deadline."""
        self._watch_exit()
        data = whole_request(head, body)
        place: Place | None = None
        kept = None if on_resend is None else self._take(target)
        if kept is None:
            kept, place = self._place(target, until, may_be_kept=on_resend is not None)
        deadline = min(until, time.monotonic() + timeout)
        if on_resend is not None and kept is not None:
            try:
                return self._exchange(kept, target, data, deadline), deadline
            except LMTransportError:
                if kept.answered or self.is_over.is_set():
                    raise
            on_resend()
            _, place = self._place(target, deadline, may_be_kept=False)
        assert place is not None
        return self._exchange(self._connected(target, place, deadline), target, data, deadline), deadline

    def _place(
        self, target: Endpoint, until: float, *, may_be_kept: bool
    ) -> tuple[BlockingConnection | None, Place | None]:
        """Return a connection that was put back, or a place for a new one; wait for either."""
        endpoint = self._pool.endpoint(target)
        places = endpoint.places
        if not places.waiters and (place := endpoint.place()) is not None:
            return None, place
        began = time.monotonic()
        end = min(until, began + PLACE_WAIT_MOST_S)
        waiter = _WaitingThread()
        places.waiters.append(waiter)
        try:
            while not any(found := endpoint.offered(waiter, may_be_kept=may_be_kept)):
                if self.is_over.is_set():  # looked at after it was added: `end` does it the other way round
                    raise LMTransportError(f"{target.name} was not asked: the interpreter exits.")
                if not waiter.wait(end - time.monotonic()):
                    raise no_place(target.name, places.most, time.monotonic() - began)
        finally:
            places.leave(waiter)
        return found

    def _connected(self, target: Endpoint, place: Place, deadline: float) -> BlockingConnection:
        """Return a new connection; where the process has no descriptor left, wait a little for one."""
        self._on_connect(target)
        patience_end = min(deadline, time.monotonic() + CONNECT_TIMEOUT_S)
        try:
            while True:
                try:
                    connection = connect(target, deadline)
                except LMLocalLimitError:
                    self._pool.close()
                    if time.monotonic() + LIMIT_PAUSE_S >= patience_end or self.is_over.is_set():
                        raise
                    self.is_over.wait(LIMIT_PAUSE_S)
                else:
                    connection.give_back = place
                    return connection
        except BaseException:  # also Ctrl-C: the place is somebody else's
            place()
            raise

    def _exchange(
        self, connection: BlockingConnection, target: Endpoint, data: bytes, deadline: float
    ) -> BlockingConnection:
        try:
            self._busy.add(connection)
            if self.is_over.is_set():  # looked at after it was added: `end` does it the other way round
                raise LMTransportError(f"{target.name} was not asked: the interpreter exits.")
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


class _WaitingThread:
    """A thread that waits for a place; its wait can be interrupted."""

    __slots__ = ("_woken", "is_woken")

    def __init__(self) -> None:
        self.is_woken = False
        self._woken = threading.Lock()
        self._woken.acquire()

    def wait(self, timeout: float) -> bool:
        """Wait until it is woken; False when the time is over."""
        return self._woken.acquire(timeout=min(max(0.0, timeout), threading.TIMEOUT_MAX))

    def wake(self) -> None:
        self.is_woken = True
        with contextlib.suppress(RuntimeError):  # it was woken already
            self._woken.release()


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
