"""The client's end of a control connection: many requests at once, from any thread, over one socket.

Callers encode and write in their own thread, under a lock that is held for one non-blocking `send`; what does not fit
is written by the connection's daemon thread, which also reads the answers and resolves their futures. A connection that
breaks stays broken: its requests fail with `ConnectionLost`, later ones with `NotRunning`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from dspex_worker.wire import Malformed

from ..errors import ConnectionLost, ForkedSupervisor, NotRunning, ResourceExhausted
from . import error_messages, protocol
from .client_request import ClientRequest
from .dial import CHUNK, dial, request_frame
from .protocol import Kind, Message

TURN = 0.5  # seconds after which the thread looks whether it is still wanted


class ClientConnection:
    """A connected control socket."""

    def __init__(self, path: Path, *, role: str = protocol.Role.CLIENT) -> None:
        """Connect and say hello.

        Raises:
            NotRunning: nobody listens there, or it is not a supervisor of this user.
            TooManyClients, ResourceExhausted, ProtocolError: it refuses us; the message says why.
            ResourceExhausted: this process has no descriptor or thread for a connection.
        """
        self.path = path
        hello = dial(path, role=role)
        self.greeting = hello.greeting
        self._sock = hello.sock
        self._frames = hello.frames
        self._ids = itertools.count(1)
        self._requests: dict[int, ClientRequest] = {}
        self._lock = threading.Lock()
        self._out: deque[memoryview] = deque()
        self._abandoned: deque[ClientRequest] = deque()
        self._is_torn = False  # set around a write: found set, its writer was interrupted (C5)
        self._broken = ""
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
        request = ClientRequest(next(self._ids), what, on_chunk=on_chunk, on_end=on_end)
        meta = {} if credit is None else {"credit": credit}
        frame = request_frame(Kind.CALL, request.id, verb, arguments, meta)
        with self._lock:
            if self._broken:
                raise self._gone()
            self._requests[request.id] = request
        try:
            self._post(frame)
        except BaseException:  # also Ctrl-C: it may have been sent, and nobody waits for its answer
            self.cancel(request)
            raise
        return request

    def cancel(self, request: ClientRequest) -> None:
        """Abandon a request: its answer, if one comes, is dropped."""
        with self._lock:
            known = self._requests.pop(request.id, None)
        request.future.cancel()
        if known is not None and not self._broken and self._pid == os.getpid():
            self._post(request_frame(Kind.CANCEL, request.id))

    def cancel_later(self, request: ClientRequest) -> None:
        """`cancel` for finalizers: takes no lock (C11)."""
        self._abandoned.append(request)
        self._wake()

    def grant(self, request: ClientRequest, count: int) -> None:
        """The consumer of a stream took chunks: the service may send as many more."""
        if not self._broken:
            self._post(request_frame(Kind.CREDIT, request.id, count))

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
        if self._broken:
            raise self._gone()

    def check_own_process(self) -> None:
        """Raise ForkedSupervisor in a forked child of the process that connected."""
        if self._pid != os.getpid():
            raise ForkedSupervisor(
                f"This client belongs to process {self._pid}; process {os.getpid()} was forked from it and must "
                f"connect by itself: call dspex.connect() there."
            )

    @property
    def is_open(self) -> bool:
        return not self._broken and self._pid == os.getpid()

    # ============================================================================================================

    def _start(self) -> None:
        """Start the thread; close the connection if the system has no room for one."""
        with contextlib.ExitStack() as undo:
            undo.callback(self._sock.close)
            with _exhaustion_named():
                self._waker_in, self._waker_out = socket.socketpair()
                for waker in (self._waker_in, self._waker_out):
                    undo.callback(waker.close)
                    waker.setblocking(False)
                self._selector = selectors.DefaultSelector()
                undo.callback(self._selector.close)
                self._thread.start()
            undo.pop_all()

    # -- writing --

    def _post(self, frame: bytes) -> None:
        """Write what fits now; the thread writes the rest."""
        with self._lock:
            self._out.append(memoryview(frame))
            is_done = self._flush()
        if not is_done:
            self._wake()

    def _flush(self) -> bool:
        """Return whether everything is written; the lock is held."""
        if self._is_torn:
            self._broken = self._broken or "a writer was interrupted in the middle of a frame"
            return False
        while self._out and not self._broken:
            self._is_torn = True
            try:
                sent = self._sock.send(self._out[0])
            except BlockingIOError:
                self._is_torn = False
                return False
            except OSError as error:
                self._is_torn = False
                self._broken = f"the service is gone ({error.strerror or error})"
                return False
            if sent == len(self._out[0]):
                self._out.popleft()
            else:
                self._out[0] = self._out[0][sent:]
            self._is_torn = False
        return not self._broken

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it is awake; closed: it has ended
            self._waker_out.send(b"w")

    # -- reading: the connection's thread --

    def _run(self) -> None:
        try:
            with self._selector as selector:
                selector.register(self._sock, selectors.EVENT_READ)
                selector.register(self._waker_in, selectors.EVENT_READ)
                while not self._broken:
                    self._turn(selector)
        except Exception as error:  # whoever waits for an answer is told why none comes
            self._break(f"{type(error).__name__} in the client's thread: {error}")
        finally:
            self._fail_all()
            for sock in (self._sock, self._waker_in, self._waker_out):
                sock.close()

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
                self._flush()
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
                self._on_message(protocol.read(body))
        except Malformed as error:
            self._break(f"the service sent something that is not the protocol: {error}")

    def _on_message(self, message: Message) -> None:
        match message:
            case [Kind.RESULT | Kind.END, id, value, _]:
                self._finish(id, value=value)
            case [Kind.ERROR, 0, described, _]:
                self._break(str(described.get("message", "it refused us")))
            case [Kind.ERROR, id, described, _]:
                self._finish(id, error=error_messages.rebuild(described))
            case [Kind.CHUNK, id, value]:
                request = self._requests.get(id)
                if request is not None and request.on_chunk is not None:
                    request.on_chunk(value)
            case _:
                pass

    def _finish(self, id: int, value: Any = None, error: BaseException | None = None) -> None:
        with self._lock:
            request = self._requests.pop(id, None)
        if request is not None:  # else its caller gave up
            request.resolve(value, error)

    def _break(self, reason: str) -> None:
        self._broken = self._broken or reason
        self._wake()

    def _fail_all(self) -> None:
        with self._lock:
            requests = tuple(self._requests.values())
            self._requests.clear()
            self._out.clear()
        for request in requests:
            request.resolve(error=ConnectionLost(str(self.path), self._broken, what=request.what))

    def _gone(self) -> NotRunning:
        return NotRunning(
            str(self.path),
            f"this client's connection has ended ({self._broken})",
            remedy="Connect again with dspex.connect(); sessions that were not shared have ended with it.",
        )


@contextlib.contextmanager
def _exhaustion_named() -> Generator[None]:
    """Raise our own error that names what the system has run out of for this process."""
    who = f"this process ({os.getpid()}), and a client needs one"
    try:
        yield
    except OSError as error:
        raise ResourceExhausted("descriptors", who, remedy="Raise its limit (`ulimit -n`).") from error
    except RuntimeError as error:  # "can't start new thread"
        remedy = "Raise the limit (`ulimit -u`, pids.max of its control group); `dspex` commands need none."
        raise ResourceExhausted("threads", who, remedy=remedy) from error
