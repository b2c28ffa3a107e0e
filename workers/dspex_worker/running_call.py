"""One running call in a worker: its arguments, session, stream and callbacks.

Three threads meet here. The *executing* thread runs the command. The *leader*, who reads, cancels it and delivers
answers to its waits. Threads that the command itself started may make callbacks too.
"""

from __future__ import annotations

from queue import SimpleQueue
from typing import Any, Protocol

from .bridge import Command
from .context import Context, Identity
from .failure import Cancelled, Failure
from .frame_writer import FrameWriter
from .parent_calls import CANCELLED, ParentCalls, PendingCallbacks, Wait
from .session_state import Sessions, SessionView
from .user_code import UserCode
from .wire.messages import Kind, Message


class CallRuntime(Protocol):
    """The worker's runtime, as its calls see it."""

    identity: Identity
    sessions: Sessions
    writer: FrameWriter
    callbacks: PendingCallbacks

    def about_to_wait(self) -> None: ...


class RunningCall:
    """One call of a command, from its CALL frame to its reply."""

    def __init__(self, runtime: CallRuntime, id: int, command: Command, arguments: dict[str, Any], meta: Any) -> None:
        self.runtime = runtime
        self.id = id
        self.identity = runtime.identity
        self.command = command
        self.arguments = arguments
        self.deadline: float | None = meta.get("deadline")
        self.session_id: str | None = meta.get("session")
        self.is_durable = bool(meta.get("durable"))
        self.is_nested = bool(meta.get("nested"))
        self.is_trusted = meta.get("trusted") is True
        self.credit: int | None = meta.get("credit")  # None: the caller wants no chunks
        self.has_ended = False
        self.interrupt_at = 0.0  # when it is interrupted next, once it is cancelled; the leader's
        self.secrets: tuple[str, ...] = ()  # which no error of the call may show
        self.user_code = UserCode()
        self.parent = ParentCalls(id, self.user_code, runtime.callbacks, runtime.about_to_wait)
        self.context = Context(self)
        self._credits: Wait | None = None if self.credit is None else SimpleQueue()
        self._view: SessionView | None = None
        self._notes: dict[str, Any] | None = None

    # -- the executing thread --

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
        """Return the reply's notes on the session's state; None if the call could not change it.

        It may be asked again, when the first reply could not be sent.
        """
        if self._view is not None and self.command.session == "write" and self._notes is None:
            self._notes = self.runtime.sessions.commit(self._view, is_durable=self.is_durable)
        return self._notes

    def send_chunk(self, value: Any) -> None:
        """Send one piece of the stream, once the consumer has room for it."""
        if self.credit is None or self._credits is None:
            return
        while self.credit <= 0:
            if self._credits.empty():
                self.runtime.about_to_wait()
            grant = self._credits.get()
            if grant is None:  # CANCELLED
                raise Cancelled
            granted: int = grant[2]
            self.credit += granted
        self.credit -= 1
        self.runtime.writer.send(Kind.CHUNK, self.id, value)

    # -- any thread of the call --

    def emit(self, event: str, facts: dict[str, Any]) -> None:
        """Send an event; see `Context.emit`."""
        with self.user_code.outside():
            self.runtime.writer.send(Kind.EVENT, self.id, event, facts)

    # -- the leader --

    def grant(self, message: Message) -> None:
        """Take a CREDIT message: the consumer has room for more chunks."""
        if self._credits is not None:
            self._credits.put(message)

    def cancel(self) -> None:
        """Wake every wait of the call; its next step into user code raises `Cancelled`.

        Also once it has been answered: threads that it left behind wait for nothing, and ask nobody any more.
        """
        self.user_code.is_cancelled = True
        if self._credits is not None:
            self._credits.put(CANCELLED)
        self.parent.cancel()
