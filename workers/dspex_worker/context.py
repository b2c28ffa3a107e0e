"""The context of a call, as the command sees it: its worker, deadline and session, and calls to the supervisor.

Its methods may be used from any thread that the command starts.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from .failure import Cancelled
from .parent_calls import ParentCalls, ParentStream
from .user_code import UserCode
from .wire import shapes


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of this worker, from the supervisor's HELLO."""

    pool: str
    worker: str
    generation: int


class CallInProgress(Protocol):
    """The call of a context, as the context sees it; `RunningCall` in workers."""

    id: int
    identity: Identity
    deadline: float | None
    session_id: str | None
    is_trusted: bool
    secrets: tuple[str, ...]
    user_code: UserCode
    parent: ParentCalls

    def session(self) -> MutableMapping[str, Any]: ...

    def emit(self, event: str, facts: dict[str, Any]) -> None: ...


class Context:
    """One call, as the command sees it."""

    def __init__(self, running: CallInProgress) -> None:
        self._running = running

    @property
    def call_id(self) -> int:
        return self._running.id

    @property
    def pool(self) -> str:
        return self._running.identity.pool

    @property
    def worker(self) -> str:
        """The worker's slot, such as "dspy/2"; a replaced worker bears the same, with a higher generation."""
        return self._running.identity.worker

    @property
    def generation(self) -> int:
        return self._running.identity.generation

    @property
    def deadline(self) -> float | None:
        """The call's deadline on `time.monotonic()`'s clock, which supervisor and worker share."""
        return self._running.deadline

    @property
    def session_id(self) -> str | None:
        return self._running.session_id

    @property
    def is_trusted(self) -> bool:
        """Whether the supervisor's own process made the call, and no client of its control socket."""
        return self._running.is_trusted

    @property
    def session(self) -> MutableMapping[str, Any]:
        """The session's state.

        Raises:
            Failure: the command did not declare `session=`, or the call came without a session.
        """
        return self._running.session()

    def call_parent(self, name: str, arguments: dict[str, Any], timeout: float | None = None) -> Any:
        """Run `name` in the supervisor's process and return its result; blocks.

        Raises:
            Failure: the handler raised; `kind` is its class.
            Cancelled: this call was cancelled meanwhile.
            TimeoutError: no answer within `timeout` seconds.
        """
        _require_shape(name, arguments)
        return self._running.parent.call(name, arguments, timeout)

    def stream_parent(self, name: str, arguments: dict[str, Any]) -> ParentStream:
        """Run `name` in the supervisor's process and iterate over its chunks; close it to stop early."""
        _require_shape(name, arguments)
        return ParentStream(self._running.parent, name, arguments)

    def emit(self, event: str, facts: dict[str, Any]) -> None:
        """Emit an event to the supervisor; nobody waits for it.

        Raises:
            TypeError, ValueError: what is given is no event; nothing is sent.
        """
        _require_shape(event, facts)
        if reserved := shapes.reserved_in(facts):
            raise ValueError(f"the facts {reserved} of event {event!r} would hide who sent it: give them other names")
        self._running.emit(event, facts)

    def log(self, write: Callable[[], None]) -> None:
        """Run what writes a log line, outside of user code: no interrupt strikes in its midst."""
        with self._running.user_code.outside():
            write()

    @property
    def secrets(self) -> tuple[str, ...]:
        """What is concealed."""
        return self._running.secrets

    def conceal(self, *secrets: str) -> None:
        """Keep these out of what leaves the worker: of the call's error (message, facts, traceback), of log lines."""
        self._running.secrets += secrets

    def when_cancelled(self, ring: Callable[[], object]) -> AbstractContextManager[None]:
        """Return a block in which `ring` is called, from another thread, when the caller has gone."""
        return self._running.parent.told(ring)

    def check_cancelled(self) -> None:
        """Raise `Cancelled` if the caller has gone; for long loops in C or in threads of their own."""
        if self._running.user_code.is_cancelled:
            raise Cancelled

    def __repr__(self) -> str:
        return f"<call {self.call_id} in {self.worker} generation {self.generation}>"


running_context: ContextVar[Context] = ContextVar("dspex_context")


def current() -> Context:
    """Return the context of the call that runs here.

    Raises:
        LookupError: no call runs in this thread (threads that user code starts need `contextvars.copy_context`).
    """
    return running_context.get()


def _require_shape(name: object, arguments: object) -> None:
    """Refuse here what would be no message of the protocol: the supervisor would retire the worker."""
    if not isinstance(name, str) or not isinstance(arguments, dict):
        given = f"({type(name).__name__}, {type(arguments).__name__})"
        raise TypeError(f"a name (str) and arguments (dict) are needed, not {given}")
    if not 0 < len(name) <= shapes.NAME_MOST:
        raise ValueError(f"a name has 1 to {shapes.NAME_MOST} characters, not {len(name):,}")
