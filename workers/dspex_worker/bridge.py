"""What a bridge script is written with: a `Bridge` that collects commands, and the `Context` that each call gets.

    from dspex_worker.bridge import Bridge, Context

    bridge = Bridge("words")

    @bridge.command()
    def count(ctx: Context, text: str) -> int:
        return len(text.split())

A command takes and gives wire values (None, bool, int, float, str, bytes, list, dict with str keys). A generator
function streams: each value it yields is a chunk, and what it returns is the stream's value.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from .wire import shapes

if TYPE_CHECKING:
    from .running_call import ParentStream, RunningCall

SessionUse = Literal["read", "write"] | None
Settings = dict[str, Any]
F = TypeVar("F", bound=Callable[..., Any])

_current: ContextVar[Context] = ContextVar("dspex_context")


class Cancelled(BaseException):
    """The call was cancelled: its caller went away, or its deadline passed. Let it through."""


class Failure(Exception):
    """An error that the caller gets as `dspex.errors.<kind>` with these facts, where that class is one of DSPex's."""

    def __init__(self, kind: str, message: str, /, **facts: Any) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.facts = facts


def current() -> Context:
    """Give the context of the call that runs here.

    Raises:
        LookupError: no call runs in this thread (threads that user code starts need `contextvars.copy_context`).
    """
    return _current.get()


class Context:
    """One call, as the command sees it. Its methods may be used from any thread that the command starts."""

    def __init__(self, running: RunningCall) -> None:
        self._running = running

    @property
    def call_id(self) -> int:
        return self._running.id

    @property
    def pool(self) -> str:
        return self._running.runtime.identity.pool

    @property
    def worker(self) -> str:
        """The worker's slot, such as "dspy/2"; a replaced worker bears the same, with a higher generation."""
        return self._running.runtime.identity.worker

    @property
    def generation(self) -> int:
        return self._running.runtime.identity.generation

    @property
    def deadline(self) -> float | None:
        """The call's deadline on `time.monotonic()`'s clock, which supervisor and worker share."""
        return self._running.deadline

    @property
    def session_id(self) -> str | None:
        return self._running.session_id

    @property
    def session(self) -> MutableMapping[str, Any]:
        """The session's state.

        Raises:
            Failure: the command did not declare `session=`, or the call came without a session.
        """
        return self._running.session()

    def call_parent(self, name: str, arguments: dict[str, Any], timeout: float | None = None) -> Any:
        """Run `name` in the supervisor's process and give its result; blocks.

        Raises:
            Failure: the handler raised; `kind` is its class.
            Cancelled: this call was cancelled meanwhile.
            TimeoutError: no answer within `timeout` seconds.
        """
        _require_shape(name, arguments)
        return self._running.call_parent(name, arguments, timeout)

    def stream_parent(self, name: str, arguments: dict[str, Any]) -> ParentStream:
        """Run `name` in the supervisor's process and iterate over its chunks; close it to stop early."""
        _require_shape(name, arguments)
        return self._running.stream_parent(name, arguments)

    def emit(self, event: str, facts: dict[str, Any]) -> None:
        """Tell the supervisor something that nobody waits for.

        Raises:
            TypeError, ValueError: what is given is no event; nothing is sent.
        """
        _require_shape(event, facts)
        if reserved := shapes.reserved_in(facts):
            raise ValueError(f"the facts {reserved} of event {event!r} would hide who sent it: give them other names")
        self._running.emit(event, facts)

    def conceal(self, *secrets: str) -> None:
        """Keep these out of what the caller is told of the call's error: its message, its facts, its traceback."""
        self._running.secrets += secrets

    def check_cancelled(self) -> None:
        """Raise `Cancelled` if the caller has gone; for long loops in C or in threads of their own."""
        if self._running.is_cancelled:
            raise Cancelled

    def __repr__(self) -> str:
        return f"<call {self.call_id} in {self.worker} generation {self.generation}>"


def _require_shape(name: object, arguments: object) -> None:
    """Refuse here what would be no message of the protocol: the supervisor would retire the worker."""
    if not isinstance(name, str) or not isinstance(arguments, dict):
        given = f"({type(name).__name__}, {type(arguments).__name__})"
        raise TypeError(f"a name (str) and arguments (dict) are needed, not {given}")
    if not 0 < len(name) <= shapes.NAME_MOST:
        raise ValueError(f"a name has 1 to {shapes.NAME_MOST} characters, not {len(name):,}")


@dataclass(frozen=True, slots=True)
class Command:
    """A named function of a bridge, and what it declared."""

    name: str
    function: Callable[..., Any]
    session: SessionUse = None
    cancel_safe: bool = False
    is_stream: bool = False

    def facts(self) -> dict[str, Any]:
        """What the READY message says of it."""
        return {"session": self.session, "cancel_safe": self.cancel_safe, "stream": self.is_stream}


@dataclass
class Bridge:
    """The commands of one kind of pool. A bridge script binds it to the name `bridge`.

    `runs_optimizers=True` says that its commands go on after a MemoryError as if it were a bad result, as optimizers
    do: under a `memory_cap` no allocation is then made to fail, a worker over the cap is only killed.
    """

    name: str
    runs_optimizers: bool = field(default=False, kw_only=True)
    commands: dict[str, Command] = field(default_factory=dict)
    warmers: list[Callable[[Settings], None]] = field(default_factory=list)
    setups: list[Callable[[Settings], None]] = field(default_factory=list)

    def command(
        self, name: str | None = None, *, session: SessionUse = None, cancel_safe: bool = False
    ) -> Callable[[F], F]:
        """Register a plain function or a generator function `f(ctx, **arguments)` as a command.

        `session="write"` may change `ctx.session` and runs alone in its session, "read" may look at it.
        `cancel_safe=True` says that an exception raised at any bytecode leaves no lock held and no state half changed,
        so that the worker need not be replaced after an interrupt.
        """

        def register(function: F) -> F:
            given = name or function.__name__
            if not 0 < len(given) <= shapes.NAME_MOST:
                raise ValueError(f"a command's name has 1 to {shapes.NAME_MOST} characters, not {len(given):,}")
            if given in self.commands:
                raise ValueError(f"bridge {self.name!r} has a command {given!r} already")
            if session not in ("read", "write", None):
                raise ValueError(f'command {given!r} declares session={session!r}: it is "read", "write" or None')
            if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
                raise TypeError(f"command {given!r} is async: commands are plain; call asyncio.run(...) inside")
            is_stream = inspect.isgeneratorfunction(function)
            self.commands[given] = Command(given, function, session, cancel_safe, is_stream)
            return function

        return register

    def warm(self, function: Callable[[Settings], None]) -> Callable[[Settings], None]:
        """Register what runs once before workers are forked: heavy imports; no threads, no sockets."""
        self.warmers.append(function)
        return function

    def setup(self, function: Callable[[Settings], None]) -> Callable[[Settings], None]:
        """Register what runs in each worker's main thread before it is ready."""
        self.setups.append(function)
        return function
