"""Stand-ins at our own seams: a runnable that does what a script says, a supervisor that only notes its sessions."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dspex.errors import CallCancelled, WorkerDied
from dspex.pipelines.steps.runnable import RunnableOutcome, Scope


@dataclass
class Scripted:
    """A Runnable that takes its next action from a list: outputs to give, an error to raise, or a function to call."""

    inputs: tuple[str, ...] = ("question",)
    outputs: tuple[str, ...] = ("answer",)
    actions: list[Any] = field(default_factory=lambda: [{"answer": "yes"}])
    optional_inputs: frozenset[str] = frozenset()
    may_repeat: bool = True
    pool: str = "fake"
    is_stateful: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    usage: Mapping[str, Any] = field(default_factory=dict)
    calls: list[tuple[dict[str, Any], Scope]] = field(default_factory=list)

    def run(self, inputs: Mapping[str, Any], scope: Scope) -> RunnableOutcome:
        self.calls.append((dict(inputs), scope))
        action = self.actions[min(len(self.calls), len(self.actions)) - 1]
        if isinstance(action, BaseException):
            raise action
        outputs = action(inputs, scope) if callable(action) else action
        return RunnableOutcome(
            dict(outputs), dict(self.extra), f"python:{self.pool}/1", f"{self.pool}/1", len(self.calls), self.usage
        )

    async def arun(self, inputs: Mapping[str, Any], scope: Scope) -> RunnableOutcome:
        return self.run(inputs, scope)


class NotedPool:
    """A pool of which only the closing of sessions is looked at."""

    def __init__(self) -> None:
        self.closed: list[str] = []

    def close_session(self, key: str) -> None:
        self.closed.append(key)


class NotedSupervisor:
    """Hands out `NotedPool`s."""

    def __init__(self) -> None:
        self.pools: dict[str, NotedPool] = {}

    def pool(self, name: str) -> NotedPool:
        return self.pools.setdefault(name, NotedPool())


class Waiting:
    """A step's body that waits until it is cancelled (as a call to a pool does) or let go."""

    def __init__(self) -> None:
        self.has_begun = threading.Event()
        self.was_cancelled = threading.Event()
        self._over = threading.Event()

    def __call__(self, inputs: Mapping[str, Any], scope: Scope) -> dict[str, Any]:
        take_back = scope.cancel.on_set(self._over.set)
        self.has_begun.set()
        assert self._over.wait(10.0), "neither cancelled nor let go"
        take_back()
        if scope.cancel.is_set:
            self.was_cancelled.set()
            raise CallCancelled("cancelled")
        return {"answer": "late"}


def died() -> WorkerDied:
    return WorkerDied("fake", "run", worker="fake/1", pid=1, cause="killed", signal=9)
