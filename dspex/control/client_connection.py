"""The client's end of a control connection: many requests at once, from any thread, over one socket.

Callers encode and write in their own thread, under a lock that is held for one non-blocking `send`; what does not fit
is written by the connection's daemon thread, which also reads the answers and resolves their futures. What the service
asks goes to `on_ask`. A connection that breaks stays broken: its requests fail with `ConnectionLost`, later ones with
`NotRunning`; `on_end` is called in its thread, last (`client_link` makes another there).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspex_worker.wire import Malformed

from ..errors import ConnectionLost, ForkedSupervisor, NotRunning
from . import error_messages, protocol
from .client_outbox import ClientOutbox
from .client_request import ClientRequest
from .dial import CHUNK, dial, exhaustion_named, request_frame
from .protocol import Kind, Message

if TYPE_CHECKING:
    from .remote_call import RemoteCall

TURN = 0.5  # seconds after which the thread looks whether it is still wanted


class ClientConnection:
    """A connected control socket."""

    def __init__(
        self,
        path: Path,
        *,
        role: str = protocol.Role.CLIENT,
        facts: Mapping[str, Any] | None = None,
        on_ask: Callable[[ClientConnection, Message, ClientRequest | None, int], None] | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        """Connect and say hello.

        Raises:
            NotRunning: nobody listens there, or it is not a supervisor of this user.
            TooManyClients, ResourceExhausted, ProtocolError: it refuses us; the message says why.
            ResourceExhausted: this process has no descriptor or thread for a connection.
        """
        self.path = path
        hello = dial(path, role=role, facts=facts)
        self.greeting = hello.greeting
        self._sock = hello.sock
        self._frames = hello.frames
        self._limit = hello.limit
        self.frame_limit = hello.limit - protocol.LIMIT_ENVELOPE  # of what goes on to a worker
        self._ids = itertools.count(1)
        self._requests: dict[int, ClientRequest] = {}
        self._lock = threading.Lock()
        self._out = ClientOutbox(hello.sock)
        self._abandoned: deque[ClientRequest] = deque()
        self._on_ask = on_ask
        self._on_end = on_end
        self._pid = os.getpid()
        self._sock.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="dspex-client", daemon=True)
        self._start()

    # -- requests: any thread ------------------------------------------------------------------------------------

    def request(
        self,
        verb: str,
        arguments: dict[str, Any],
        *,
        what: str,
        call: RemoteCall | None = None,
        credit: int | None = None,
        on_chunk: Callable[[Any], None] | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> ClientRequest:
        """Send a request.

        Raises:
            EncodeError, FrameTooLarge: it cannot be sent; nothing was.
            NotRunning: the connection has ended.
        """
        self.check_usable()
        request = ClientRequest(next(self._ids), what, call=call, on_chunk=on_chunk, on_end=on_end)
        meta = {} if credit is None else {"credit": credit}
        frame = request_frame(Kind.CALL, request.id, verb, arguments, meta, limit=self._limit)
        with self._lock:
            if self._out.broken:
                raise self._gone()
            self._requests[request.id] = request
        try:
            self.post(frame, request)
        except BaseException:  # also Ctrl-C: it may have been sent, and nobody waits for its answer
            self.cancel(request)
            raise
        return request

    def cancel(self, request: ClientRequest, error: BaseException | None = None) -> None:
        """Abandon a request: its answer, if one comes, is dropped. Whoever waits for it gets `error`, if given."""
        with self._lock:
            known = self._requests.pop(request.id, None)
        if error is not None:
            request.resolve(error=error)
        request.future.cancel()
        if known is not None and not self._out.broken and self._pid == os.getpid():
            self.post(request_frame(Kind.CANCEL, request.id))

    def cancel_later(self, request: ClientRequest) -> None:
        """`cancel` for finalizers: takes no lock (C11)."""
        self._abandoned.append(request)
        self._wake()

    def grant(self, request: ClientRequest, count: int) -> None:
        """The consumer of a stream took chunks: the service may send as many more."""
        if not self._out.broken:
            self.post(request_frame(Kind.CREDIT, request.id, count))

    def close(self) -> None:
        """End the connection; requests under way fail. May be called twice, and from any thread."""
        if self._pid != os.getpid():
            return
        self._break("it was closed here")
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=5.0)

    def check_usable(self) -> None:
        """Check that a request can be made.

        Raises:
            ForkedSupervisor: this is a forked child of the process that connected.
            NotRunning: the connection has ended.
        """
        self.check_own_process()
        if self._out.broken:
            raise self._gone()

    def check_own_process(self) -> None:
        """Raise ForkedSupervisor in a forked child of the process that connected."""
        if self._pid != os.getpid():
            raise ForkedSupervisor(
                f"This client belongs to process {self._pid}; process {os.getpid()} was forked from it and must "
                f"connect by itself: call dspex.connect() there."
            )

    @property
    def unwritten(self) -> int:
        """The bytes that wait to be written."""
        return self._out.unwritten

    @property
    def is_open(self) -> bool:
        return not self._out.broken and self._pid == os.getpid()

    # ============================================================================================================

    def _start(self) -> None:
        """Start the thread; close the connection if the system has no room for one."""
        with contextlib.ExitStack() as undo:
            undo.callback(self._sock.close)
            with exhaustion_named():
                self._waker_in, self._waker_out = socket.socketpair()
                for waker in (self._waker_in, self._waker_out):
                    undo.callback(waker.close)
                    waker.setblocking(False)
                self._selector = selectors.DefaultSelector()
                undo.callback(self._selector.close)
                self._thread.start()
            undo.pop_all()

    # -- writing --

    def post(self, frame: bytes, request: ClientRequest | None = None) -> None:
        """Write what fits now; the thread writes the rest."""
        with self._lock:
            self._out.append(frame, request)
            is_done = self._out.flush()
        if not is_done:
            self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it is awake; closed: it has ended
            self._waker_out.send(b"w")

    # -- reading: the connection's thread --

    def _run(self) -> None:
        try:
            with self._selector as selector:
                selector.register(self._sock, selectors.EVENT_READ)
                selector.register(self._waker_in, selectors.EVENT_READ)
                while not self._out.broken:
                    self._turn(selector)
        except Exception as error:  # whoever waits for an answer is told why none comes
            self._break(f"{type(error).__name__} in the client's thread: {error}")
        finally:
            self._fail_all()
            for sock in (self._sock, self._waker_in, self._waker_out):
                sock.close()
            if self._on_end is not None:
                self._on_end()

    def _turn(self, selector: selectors.BaseSelector) -> None:
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
        selector.modify(self._sock, wanted)
        for key, events in selector.select(TURN):
            if key.fileobj is self._waker_in:
                self._drain_wakeups()
            elif events & selectors.EVENT_READ:
                self._read()
        if self._out:
            with self._lock:
                self._out.flush()
        while self._abandoned:
            self.cancel(self._abandoned.popleft())

    def _drain_wakeups(self) -> None:
        with contextlib.suppress(OSError):
            while self._waker_in.recv(4096):
                pass

    def _read(self) -> None:
        try:
            data = self._sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._break(str(error.strerror or error))
            return
        if not data:
            self._break("the supervisor closed it")
            return
        try:
            for body in self._frames.feed(data):
                self._on_message(protocol.read(body), len(body))
        except Malformed as error:
            self._break(f"the service sent something that is not the protocol: {error}")

    def _on_message(self, message: Message, size: int) -> None:
        match message:
            case [Kind.RESULT | Kind.END, id, value, notes]:
                self._finish(id, value=value, notes=notes)
            case [Kind.ERROR, 0, described, _]:
                self._break(str(described.get("message", "it refused us")))
            case [Kind.ERROR, id, described, notes]:
                self._finish(id, error=error_messages.rebuild(described), notes=notes)
            case [Kind.CHUNK, id, value]:
                request = self._requests.get(id)
                if request is not None and request.on_chunk is not None:
                    request.on_chunk(value)
            case [Kind.CALL | Kind.CANCEL | Kind.CREDIT, *_] if self._on_ask is not None:
                outer = message[4].get("for") if message[0] == Kind.CALL else None
                self._on_ask(self, message, self._requests.get(outer) if isinstance(outer, int) else None, size)
            case _:
                pass

    def _finish(self, id: int, value: Any = None, error: BaseException | None = None, notes: Any = None) -> None:
        with self._lock:
            request = self._requests.pop(id, None)
        if request is not None:  # else its caller gave up
            request.resolve(value, error, notes)

    def _break(self, reason: str) -> None:
        self._out.broken = self._out.broken or reason
        self._wake()

    def _fail_all(self) -> None:
        with self._lock:
            requests = tuple(self._requests.values())
            self._requests.clear()
            self._out.clear()
        for request in requests:
            lost = ConnectionLost(str(self.path), self._out.broken, what=request.what)
            if not request.is_sent:
                lost.retryable = "now"  # the service never had all of it
            request.resolve(error=lost)

    def _gone(self) -> NotRunning:
        return NotRunning(
            str(self.path),
            f"this client's connection has ended ({self._out.broken})",
            remedy="Connect again with dspex.connect(); sessions that were not shared have ended with it.",
        )
