"""Write bridge scripts: a `Bridge` collects commands, and each call gets a `Context`.

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
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from .context import Context, current
from .failure import Cancelled, Failure
from .wire import shapes

__all__ = ["Bridge", "Cancelled", "Command", "Context", "Failure", "SessionUse", "Settings", "current"]

SessionUse = Literal["read", "write"] | None
Settings = dict[str, Any]
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Command:
    """A named function of a bridge, and its declarations."""

    name: str
    function: Callable[..., Any]
    session: SessionUse = None
    cancel_safe: bool = False
    is_stream: bool = False

    def facts(self) -> dict[str, Any]:
        """Return the facts about it in the READY message."""
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
    teardowns: list[Callable[[Settings], None]] = field(default_factory=list)

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
        """Register a function that runs once before workers are forked: heavy imports; no threads, no sockets."""
        self.warmers.append(function)
        return function

    def setup(self, function: Callable[[Settings], None]) -> Callable[[Settings], None]:
        """Register a function that runs in each worker's main thread before it is ready."""
        self.setups.append(function)
        return function

    def teardown(self, function: Callable[[Settings], None]) -> Callable[[Settings], None]:
        """Register a function that runs in each worker's main thread at a planned end: stop, recycle, reload, resize.

        No call runs any more, and the host is not asked. The last registered runs first, then what `atexit` has. All
        of it together has `teardown_timeout` seconds. It does not run in a worker that is killed, or dies.
        """
        self.teardowns.append(function)
        return function
