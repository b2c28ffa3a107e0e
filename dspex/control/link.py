"""The client's end of one control connection: many requests at once, from any thread, over one socket.

Callers encode and write in their own thread, under a lock that is held for one non-blocking `send`; what does not fit
is written by the link's daemon thread, which also reads the answers and resolves their futures. A link that breaks
stays broken: its requests fail with `ConnectionLost`, later ones with `NotRunning`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from pathlib import Path
from typing import Any

from dspex_worker.wire import FrameBuffer, Malformed, OverLimit, Unencodable

from ..errors import ConnectionLost, DspexError, EncodeError, ForkedSupervisor, FrameTooLarge, NotRunning
from . import crossing, protocol
from .connection import peer_uid
from .protocol import Kind, Message

HELLO_PATIENCE = 5.0  # seconds until the service must have answered the hello
CHUNK = 256 * 1024  # bytes of one read
TURN = 0.5  # seconds after which the thread looks whether it is still wanted


class Request:
    """One request under way. `future` gets its outcome; a stream's chunks go to `on_chunk` first."""

    __slots__ = ("future", "id", "on_chunk", "on_end", "what")

    def __init__(
        self,
        id: int,
        what: str,
        *,
        on_chunk: Callable[[Any], None] | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self.id = id
        self.what = what
        self.future: Future[Any] = Future()
        self.on_chunk = on_chunk
        self.on_end = on_end

    def resolve(self, value: Any = None, error: BaseException | None = None) -> None:
        """Set the outcome unless there is one; a caller that went away has cancelled its future."""
        with contextlib.suppress(InvalidStateError):
            if error is not None:
                self.future.set_exception(error)
            else:
                self.future.set_result(value)
        if self.on_end is not None:
            self.on_end()


class Link:
    """A connected control socket."""

    def __init__(self, path: Path) -> None:
        """Connect and say hello.

        Raises:
            NotRunning: nobody listens there, or it is not a supervisor of this user.
            ProtocolError: it refuses us; the message says why.
        """
        self.path = path
        self._sock = _connect(path)
        self._frames = FrameBuffer(protocol.LIMIT)
        self._ids = itertools.count(1)
        self._requests: dict[int, Request] = {}
        self._lock = threading.Lock()
        self._out: deque[memoryview] = deque()
        self._abandoned: deque[Request] = deque()
        self._is_torn = False  # set around a write: found set, its writer was interrupted (C5)
        self._broken = ""
        self._pid = os.getpid()
        try:
            self.greeting = self._greet()
        except BaseException:
            self._sock.close()
            raise
        self._sock.setblocking(False)
        self._waker_in, self._waker_out = socket.socketpair()
        self._waker_in.setblocking(False)
        self._waker_out.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="dspex-client", daemon=True)
        self._thread.start()

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
    ) -> Request:
        """Send a request.

        Raises:
            EncodeError, FrameTooLarge: it cannot be sent; nothing was.
            NotRunning: the connection has ended.
        """
        self.check_usable()
        request = Request(next(self._ids), what, on_chunk=on_chunk, on_end=on_end)
        meta = {} if credit is None else {"credit": credit}
        frame = _frame(Kind.CALL, request.id, verb, arguments, meta)
        with self._lock:
            if self._broken:
                raise self._gone()
            self._requests[request.id] = request
        try:
            self._post(frame)
        except BaseException:
            self.cancel(request)
            raise
        return request

    def cancel(self, request: Request) -> None:
        """Give a request up: its answer, if one comes, answers nobody."""
        with self._lock:
            known = self._requests.pop(request.id, None)
        request.future.cancel()
        if known is not None and not self._broken and self._pid == os.getpid():
            self._post(_frame(Kind.CANCEL, request.id))

    def cancel_later(self, request: Request) -> None:
        """`cancel` for finalizers: takes no lock (C11)."""
        self._abandoned.append(request)
        self._wake()

    def grant(self, request: Request, count: int) -> None:
        """The consumer of a stream took chunks: the service may send as many more."""
        if not self._broken:
            self._post(_frame(Kind.CREDIT, request.id, count))

    def close(self) -> None:
        """End the connection; requests under way fail. May be called twice, and from any thread."""
        if self._pid != os.getpid():
            return
        self._break("it was closed here")
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=5.0)

    def check_usable(self) -> None:
        """Raise what a caller must hear before anything else.

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
    # writing

    def _post(self, frame: bytes) -> None:
        """Write what fits now; the thread writes the rest."""
        with self._lock:
            self._out.append(memoryview(frame))
            is_done = self._flush()
        if not is_done:
            self._wake()

    def _flush(self) -> bool:
        """Whether everything is written; the lock is held."""
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

    # ============================================================================================================
    # reading: the link's thread

    def _run(self) -> None:
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._sock, selectors.EVENT_READ)
                selector.register(self._waker_in, selectors.EVENT_READ)
                while not self._broken:
                    self._turn(selector)
        except Exception as error:  # whoever waits for an answer must hear why none comes
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
                self._take(protocol.read(body))
        except Malformed as error:
            self._break(f"the service sent something that is not the protocol: {error}")

    def _take(self, message: Message) -> None:
        match message:
            case [Kind.RESULT | Kind.END, id, value, _]:
                self._finish(id, value=value)
            case [Kind.ERROR, 0, described, _]:
                self._break(str(described.get("message", "it refused us")))
            case [Kind.ERROR, id, described, _]:
                self._finish(id, error=crossing.rebuild(described))
            case [Kind.CHUNK, id, value]:
                request = self._requests.get(id)
                if request is not None and request.on_chunk is not None:
                    request.on_chunk(value)

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

    def _greet(self) -> dict[str, Any]:
        deadline = time.monotonic() + HELLO_PATIENCE
        facts = {"pid": os.getpid()}
        try:
            self._sock.sendall(protocol.send(Kind.HELLO, protocol.MAGIC, *protocol.VERSION, facts))
        except OSError:
            pass  # it may have refused us before it read: its reason can be read still
        try:
            while True:
                self._sock.settimeout(max(0.01, deadline - time.monotonic()))
                data = self._sock.recv(CHUNK)
                if not data:
                    raise NotRunning(str(self.path), "the listener closed the connection without a word")
                for body in self._frames.feed(data):
                    return self._read_greeting(protocol.read(body))
        except Malformed as error:
            raise NotRunning(str(self.path), f"what listens there is no DSPex supervisor: {error}") from None
        except OSError as error:
            if isinstance(error, DspexError):
                raise
            raise NotRunning(
                str(self.path),
                f"the listener did not say hello within {HELLO_PATIENCE:g} s ({error})",
                remedy="Its process may be stopped or stuck; `dspex stop --now` ends it.",
            ) from None

    def _read_greeting(self, message: Message) -> dict[str, Any]:
        if message[0] == Kind.ERROR:
            raise crossing.rebuild(message[2])
        return protocol.hello(message)


def _connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    sock.settimeout(HELLO_PATIENCE)
    try:
        sock.connect(str(path))
    except FileNotFoundError:
        sock.close()
        raise NotRunning(str(path), "there is no socket") from None
    except OSError as error:
        sock.close()
        raise NotRunning(str(path), error.strerror or str(error)) from None
    if (uid := peer_uid(sock)) != os.getuid():
        sock.close()
        raise NotRunning(
            str(path), f"the listener is uid {uid}, not {os.getuid()}", remedy="Look who put a socket there."
        )
    return sock


def _frame(kind: Kind, *fields: object) -> bytes:
    try:
        return protocol.send(kind, *fields)
    except Unencodable as error:
        _, is_argument, below = error.path.partition("['arguments']")  # the caller's own, within the message
        raise EncodeError(f"arguments{below}" if is_argument else error.path, error.type_name, error.reason) from None
    except OverLimit as error:
        raise FrameTooLarge("parent", error.limit, error.actual, what=error.what) from None
