"""Put a pipeline's steps in sequence and check them; the plan of `Pipeline`, and of a pipeline as a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...errors import SettingsError
from .dataflow import Flow, Reads, in_sequence
from .step import Node, Step, place
from .step_cache import CacheStep, StepStore


@dataclass(frozen=True)
class StepSequence:
    """Steps in sequence, with the stores of the cache steps among them, and what the steps read."""

    nodes: tuple[Node, ...]
    reads: Reads
    stores: Mapping[int, StepStore] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in sequence, placed and checked."""

    name: str
    steps: tuple[Step, ...]
    flow: Flow
    sequence: StepSequence

    @classmethod
    def of(cls, steps: Sequence[Step], name: str) -> Plan:
        """Place and check the steps.

        Raises:
            SettingsError: a step cannot work where it stands.
            KeyClash: branches of a parallel step declare to write the same name (P3).
        """
        nodes = place(steps)
        _check_caches(steps)
        flow = in_sequence(step.flow for step in steps)
        return cls(name, tuple(steps), flow, sequence_of(nodes, flow.reads))

    def explain(self) -> tuple[StepPlan, ...]:
        """Return for each step where it would run, and why."""
        return tuple(map(_plan, self.sequence.nodes))

    def reader_of(self, name: str) -> str:
        """Return the name of the first step that must read `name`."""
        for node in self.sequence.nodes:
            if name in node.step.flow.reads.required:
                return node.name
        return self.sequence.nodes[0].name


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Where a step would run, and why; what it reads and writes as far as that is known before a run."""

    index: int
    name: str
    kind: str
    route: str  # "native", "python:<pool>", "undecided"; "" for steps made of steps
    reason: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    parts: tuple[StepPlan, ...] = ()

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        own = f"{self.index}. {self.name}: {self.route or self.kind}{reason}"
        return "\n".join([own, *("   " + line for part in self.parts for line in str(part).splitlines())])


def sequence_of(nodes: tuple[Node, ...], reads: Reads) -> StepSequence:
    """Return the sequence of placed steps, with an empty store for each cache step."""
    stores = {n.index: StepStore(n.step.ttl, n.step.max_entries) for n in nodes if isinstance(n.step, CacheStep)}
    return StepSequence(nodes, reads, stores)


def _plan(node: Node) -> StepPlan:
    flow: Flow = node.step.flow
    route, reason = ("", "") if node.parts else node.step.plan()
    reads = sorted(flow.reads.required | flow.reads.optional)
    parts = (*node.parts, *((node.fallback,) if node.fallback is not None else ()))
    return StepPlan(
        node.index,
        node.name,
        node.step.kind,
        route,
        reason,
        (*reads, "*") if flow.reads.is_everything else tuple(reads),
        (*sorted(flow.writes.possible), "*") if flow.writes.is_open else tuple(sorted(flow.writes.possible)),
        tuple(map(_plan, parts)),
    )


def _check_caches(steps: Sequence[Step]) -> None:
    """A cache step must not stand behind what changes a session's state: serving its values would skip the change."""
    for i, step in enumerate(steps):
        if not isinstance(step, CacheStep):
            continue
        if i == 0:
            raise SettingsError("A cache step keeps what the steps before it write; here there is none.")
        if any(earlier.is_stateful for earlier in steps[:i]):
            raise SettingsError(
                "A cache step cannot follow a stateful step: serving what was kept would leave the session's state out."
            )
