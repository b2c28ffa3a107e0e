"""One call while it runs in the worker: its state, its waits, and how it is interrupted.

Three threads meet here. The *executing* thread runs the command. The *leader*, who reads, cancels it and delivers
answers to its waits. Threads that the command itself started may make reverse calls too.

An interrupt (an exception raised between two bytecodes) may reach the executing thread only while it is inside user
code: `inside` is set and cleared by that thread alone, and everything that belongs to the runtime (writing a frame,
waiting for an answer) happens outside. A wait needs no interrupt: cancelling puts CANCELLED into its queue.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from .bridge import Cancelled, Command, Context, Failure
from .wire.error_codec import read
from .wire.messages import Kind, Message

if TYPE_CHECKING:
    from .runtime import Runtime
    from .session_state import SessionView

STREAM_CREDIT = 16  # chunks of a reverse stream that the supervisor may send ahead

_SET_ASYNC_EXC = ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
_raise_in = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.py_object)(_SET_ASYNC_EXC)
_take_back = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)(_SET_ASYNC_EXC)  # with NULL

Wait = SimpleQueue[Message | None]
CANCELLED = None  # what a wait gets instead of a message when its call is cancelled


class RunningCall:
    """A command on its way, from its CALL frame to its reply."""

    def __init__(self, runtime: Runtime, id: int, command: Command, arguments: dict[str, Any], meta: Any) -> None:
        self.runtime = runtime
        self.id = id
        self.command = command
        self.arguments = arguments
        self.deadline: float | None = meta.get("deadline")
        self.session_id: str | None = meta.get("session")
        self.is_durable = bool(meta.get("durable"))
        self.is_nested = bool(meta.get("nested"))
        self.credit: int | None = meta.get("credit")  # None: the caller wants no chunks
        self.is_cancelled = False
        self.interrupt_at = 0.0  # when it is interrupted next, once it is cancelled; the leader's
        self.was_interrupted = False
        self.inside = False
        self.secrets: tuple[str, ...] = ()  # which no error of the call may show
        self.context = Context(self)
        self._credits: Wait = SimpleQueue()
        self._guard = threading.Lock()
        self._thread = 0
        self._view: SessionView | None = None
        self._notes: dict[str, Any] | None = None
        self._waits: set[Wait] = set()

    # -- the executing thread --

    def enter(self) -> None:
        """Step into user code.

        Raises:
            Cancelled: the call was cancelled before.
        """
        self._thread = threading.get_ident()
        self.inside = True
        if self.is_cancelled:
            self.leave()
            raise Cancelled

    def leave(self) -> None:
        """Step out of user code; once this returns, no interrupt reaches the thread any more."""
        while True:
            try:
                with self._guard:
                    self.inside = False
                    if self.was_interrupted:
                        _take_back(self._thread, None)
                return
            except Cancelled:
                continue  # it struck on the way out

    @contextlib.contextmanager
    def outside(self) -> Iterator[None]:
        """Leave user code for a while, from whichever thread of the call."""
        if not (self.inside and threading.get_ident() == self._thread):
            yield
            return
        self.leave()
        try:
            yield
        finally:
            self.enter()

    def session(self) -> SessionView:
        if self.session_id is None:
            raise Failure("InvalidInput", f"{self.command.name!r} uses session state: call it in a session")
        if self.command.session is None:
            raise Failure("InvalidInput", f'command {self.command.name!r} did not declare session="read" or "write"')
        if self._view is None:
            is_writable = self.command.session == "write"
            self._view = self.runtime.sessions.view(self.session_id, is_writable=is_writable)
        return self._view

    def session_notes(self) -> dict[str, Any] | None:
        """What the reply says of the session's state; None if the call could not change it.

        It may be asked again, when the first reply could not be sent.
        """
        if self._view is not None and self.command.session == "write" and self._notes is None:
            self._notes = self.runtime.sessions.settle(self._view, is_durable=self.is_durable)
        return self._notes

    def send_chunk(self, value: Any) -> None:
        """Send one piece of the stream, once the consumer has room for it."""
        if self.credit is None:
            return
        while self.credit <= 0:
            if self._credits.empty():
                self.runtime.about_to_wait()
            grant = self._credits.get()
            if grant is CANCELLED:
                raise Cancelled
            self.credit += grant[2]
        self.credit -= 1
        self.runtime.send(Kind.CHUNK, self.id, value)

    # -- any thread of the call: see Context --

    def call_parent(self, name: str, arguments: dict[str, Any], timeout: float | None) -> Any:
        give_up = None if timeout is None else time.monotonic() + timeout
        with self.outside(), self._asking(name, arguments, {}) as (_, wait):
            self.runtime.about_to_wait()
            message = _next(wait, give_up, name)
            if message[0] == Kind.ERROR:
                raise failure_of(message[2])
            return message[2]

    def stream_parent(self, name: str, arguments: dict[str, Any]) -> ParentStream:
        return ParentStream(self, name, arguments)

    def emit(self, event: str, facts: dict[str, Any]) -> None:
        with self.outside():
            self.runtime.send(Kind.EVENT, self.id, event, facts)

    @contextlib.contextmanager
    def _asking(self, name: str, arguments: dict[str, Any], meta: dict[str, Any]) -> Iterator[tuple[int, Wait]]:
        """Send a reverse call and listen for its answer; leaving early cancels it."""
        wait: Wait = SimpleQueue()
        self._waits.add(wait)
        if self.is_cancelled:
            self._waits.discard(wait)
            raise Cancelled
        id = self.runtime.ask(wait, name, arguments, meta | {"for": self.id})
        try:
            yield id, wait
        finally:
            self._waits.discard(wait)
            self.runtime.forget_ask(id)

    # -- the leader --

    def grant(self, message: Message) -> None:
        self._credits.put(message)

    def cancel(self) -> None:
        """Wake every wait of the call; its next step into user code raises `Cancelled`.

        Also once it has been answered: threads that it left behind wait for nothing, and ask nobody any more.
        """
        self.is_cancelled = True
        self._credits.put(CANCELLED)
        for wait in tuple(self._waits):
            wait.put(CANCELLED)

    def interrupt(self) -> None:
        """Raise `Cancelled` in a thread that runs Python code of the user (not in the main thread: see Runtime)."""
        with self._guard:
            if self.inside:
                self.was_interrupted = True
                _raise_in(self._thread, Cancelled)


class ParentStream(Iterator[Any]):
    """The chunks of a reverse call, in order; `value` is its result once all are read. Close it to stop early."""

    def __init__(self, running: RunningCall, name: str, arguments: dict[str, Any]) -> None:
        self.value: Any = None
        self._running = running
        self._name = name
        self._consumed = 0
        self._asked = running._asking(name, arguments, {"credit": STREAM_CREDIT})
        with running.outside():
            self._id, self._wait = self._asked.__enter__()
        self._is_open = True

    def __next__(self) -> Any:
        if not self._is_open:
            raise StopIteration
        try:
            with self._running.outside():
                if self._wait.empty():
                    self._running.runtime.about_to_wait()
                message = _next(self._wait, None, self._name)
                if message[0] == Kind.CHUNK:
                    self._refill()
        except BaseException:
            self.close()
            raise
        if message[0] == Kind.CHUNK:
            return message[2]
        self.close()
        if message[0] == Kind.ERROR:
            raise failure_of(message[2])
        self.value = message[2]
        raise StopIteration

    def close(self) -> None:
        """Stop; the handler in the supervisor's process is cancelled if it has not ended."""
        if self._is_open:
            self._is_open = False
            self._asked.__exit__(None, None, None)

    def __enter__(self) -> ParentStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _refill(self) -> None:
        self._consumed += 1
        if self._consumed >= STREAM_CREDIT // 2:
            self._running.runtime.send(Kind.CREDIT, self._id, self._consumed)
            self._consumed = 0


def failure_of(described: object) -> Failure:
    """Return the exception for the description in an ERROR message."""
    found = read(described)
    return Failure(found.name, found.message, **found.facts)


def _next(wait: Wait, give_up: float | None, name: str) -> Message:
    try:
        message = wait.get(timeout=None if give_up is None else max(0.0, give_up - time.monotonic()))
    except Empty:
        raise TimeoutError(f"the supervisor did not answer {name!r} in time") from None
    if message is CANCELLED:
        raise Cancelled
    return message
