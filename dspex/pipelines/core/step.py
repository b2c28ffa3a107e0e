"""The base of all steps, and how steps are placed in a pipeline: numbered, named, checked.

Steps are immutable and may be used in several pipelines. Each kind says in `perform` what it does once; skipping,
retries, timeouts and fallbacks are the same for all and are in `runner`.
"""

from __future__ import annotations

import dataclasses
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from ...errors import (
    CallCancelled,
    InterruptedCall,
    PoisonCall,
    PoolClosed,
    SettingsError,
    UsageError,
)
from ..drivers.driver import Driver
from .dataflow import Flow
from .parameters import Condition, missing
from .results import Optimization, Status, StepRecord, Usage
from .run import PipelineRun
from .snapshots import Snapshot


@dataclass(frozen=True, slots=True)
class Policy:
    """When a step runs, how long, how often, and what runs instead (P7)."""

    when: Condition | None = None
    timeout: float | None = None  # seconds for all attempts together
    retry: int | None = None  # further attempts; None: the kind's default, for a worker's death only
    fallback: Step | None = None


@dataclass(frozen=True, slots=True)
class StepOutput:
    """The output of one attempt: `value` for `into=`, and `writes` by name (None: the value names none itself)."""

    value: Any = None
    writes: Mapping[str, Any] | None = None
    route: str = "native"
    worker: str = ""
    generation: int | None = None
    usage: Usage = field(default_factory=dict)
    cached: bool = False
    reason: str = ""
    optimized: Optimization | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    children: Sequence[StepRecord] = ()


@dataclass(frozen=True, slots=True)
class StepJob:
    """The inputs and context of an attempt."""

    run: PipelineRun
    node: Node
    state: Mapping[str, Any]
    driver: Driver
    deadline: float


@dataclass(frozen=True, kw_only=True)
class Step(ABC):
    """One step of a pipeline; made by `native`, `python`, `parallel` and the like."""

    kind: ClassVar[str]

    name: str | None = None
    policy: Policy = Policy()
    into: str | None = None
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for key, given in (("name", self.name), ("into", self.into)):
            if given is not None:
                names_of((given,), key)

    @abstractmethod
    async def perform(self, job: StepJob) -> StepOutput:
        """Attempt the step once. Raises whatever goes wrong; the deadline is `job.deadline`."""

    @property
    @abstractmethod
    def default_name(self) -> str:
        """The name of the step if the user gave none."""

    @cached_property
    def own_flow(self) -> Flow:
        """The reads and writes of the step itself, without `when` and fallback."""
        return self._own_flow()

    @abstractmethod
    def _own_flow(self) -> Flow:
        """Work out `own_flow`."""

    @property
    def parts(self) -> tuple[Step, ...]:
        """The steps inside it."""
        return ()

    @property
    def default_retry(self) -> int:
        """Attempts after a worker's death, if the user set none."""
        return 0

    @property
    def is_stateful(self) -> bool:
        return any(part.is_stateful for part in self.parts)

    def check(self, *, is_collected: bool) -> None:  # noqa: B027 - most kinds have nothing to refuse
        """Refuse what cannot work where it stands. `is_collected`: a parallel step takes its value, whatever it is."""

    def collects(self, *, is_collected: bool) -> bool:
        """Whether it takes the values of its parts, whatever they are, itself standing in a place that does or not."""
        return False

    def plan(self) -> tuple[str, str]:
        """Return the route, and the reason for it."""
        return "native", ""

    @property
    def flow(self) -> Flow:
        """The reads and writes of the step with `when` and fallback."""
        own, policy = self.own_flow, self.policy
        reads, writes = own.reads, own.writes
        if policy.fallback is not None:
            instead = policy.fallback.flow
            reads |= instead.reads.without("error").softened()
            same = self.into is not None and policy.fallback.into is None
            writes = writes if same else writes.either(instead.writes)
        if policy.when is not None:
            reads, writes = policy.when.reads | reads.softened(), writes.softened()
        return Flow(reads, writes)

    def retries(self) -> int:
        return self.default_retry if self.policy.retry is None else self.policy.retry

    def may_retry(self, error: BaseException) -> bool:
        """Whether trying again could help, and is allowed to.

        Without `retry=` only a worker's death counts. With it, all but what would be refused again just the same.
        """
        if self.policy.retry is None:
            return is_death(error)
        return not isinstance(error, UsageError | SettingsError | PoolClosed | PoisonCall)


@dataclass(frozen=True)
class Node:
    """A step at its place: its number among its siblings, and a name that no other step of the pipeline has."""

    step: Step
    name: str
    index: int
    parts: tuple[Node, ...] = ()
    fallback: Node | None = None
    is_collected: bool = False

    def record(self, status: Status, **facts: Any) -> StepRecord:
        return StepRecord(self.name, self.index, self.step.kind, status, **facts)

    def cancelled(self) -> StepRecord:
        return self.record(Status.CANCELLED, reason="a sibling failed, and its work was cancelled")


def place(steps: Sequence[Step], taken: set[str] | None = None, *, collects: bool = False) -> tuple[Node, ...]:
    """Return the steps as nodes: numbered and named, parts included; equal names get a number.

    Raises:
        SettingsError: a step cannot work where it stands.
    """
    names = set() if taken is None else taken
    return tuple(_placed(step, i, names, is_collected=collects) for i, step in enumerate(steps))


def is_death(error: BaseException) -> bool:
    """Return whether the worker went away under the call, which is not the caller's fault."""
    return isinstance(error, InterruptedCall) and not isinstance(error, TimeoutError | CallCancelled)


def inputs_of(names: Sequence[str], optional: frozenset[str], job: StepJob) -> dict[str, Any]:
    """Return the values of the state that a signature reads.

    Raises:
        InvalidInput: the state lacks something.
    """
    values: Mapping[str, Any] = Snapshot(job.state)
    error = job.state.get("error")
    if "error" in names and isinstance(error, BaseException):
        values = {**values, "error": f"{type(error).__name__}: {error}"}  # a fallback's: only its text can be sent
    for name in names:
        if name not in values and name not in optional:
            raise missing(name, job.node.name, job.state)
    return {name: values[name] for name in names if name in values}


def remaining(job: StepJob, *given: float | None) -> float | None:
    """Return the seconds until the deadline; None, for the pool's own default, where nobody gave a timeout."""
    if job.deadline < math.inf:
        return max(0.0, job.deadline - time.monotonic())
    return math.inf if math.inf in given else None


def checked_policy(
    *, when: Any = None, timeout: float | None = None, retry: int | None = None, fallback: Step | None = None
) -> Policy:
    """Return the policy for these arguments.

    Raises:
        SettingsError: one of them is out of range.
    """
    if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
        raise SettingsError(f"timeout is {timeout!r}; it is a span in seconds, more than 0.", key="timeout")
    if retry is not None and (isinstance(retry, bool) or not isinstance(retry, int) or retry < 0):
        raise SettingsError(f"retry is {retry!r}; it is the number of further attempts, 0 or more.", key="retry")
    return Policy(Condition.of(when) if when is not None else None, timeout, retry, fallback)


def names_of(value: Any, key: str) -> tuple[str, ...]:
    """Return state names from one or several.

    Raises:
        SettingsError: they are none.
    """
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, Iterable):
        raise SettingsError(f"{key} is {value!r}; it takes a name, or a list of names.", key=key)
    names = tuple(names)
    for name in names:
        if not isinstance(name, str) or not name:
            raise SettingsError(f"{key} holds {name!r}; it takes text that is not empty.", key=key)
    return names


def _placed(step: Step, index: int, taken: set[str], *, is_collected: bool) -> Node:
    if not isinstance(step, Step):
        raise SettingsError(
            f"Step {index} is a {type(step).__name__}; a pipeline is made of steps: dspex.native(...), "
            f"dspex.python(...), dspex.parallel([...]), and pipelines."
        )
    step.check(is_collected=is_collected)
    name = _free(step.name or step.default_name, taken)
    parts = place(step.parts, taken, collects=step.collects(is_collected=is_collected)) if step.parts else ()
    instead = step.policy.fallback
    fallback = None
    if instead is not None:
        named = instead if instead.name else dataclasses.replace(instead, name=f"{name} fallback")
        fallback = _placed(named, index, taken, is_collected=is_collected or step.into is not None)
    return Node(step, name, index, parts, fallback, is_collected)


def _free(name: str, taken: set[str]) -> str:
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    taken.add(found)
    return found
