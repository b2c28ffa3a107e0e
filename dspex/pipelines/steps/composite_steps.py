"""Steps made of steps: parallel, conditional, mapped over a list, or a nested pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ...errors import InvalidInput, KeyClash, SettingsError
from ..core import step_runner
from ..core.dataflow import Flow, Reads, Writes, side_by_side
from ..core.parameters import Condition, missing
from ..core.plan import Plan, StepSequence
from ..core.results import StepRecord, summed
from ..core.runner import run_sequence
from ..core.step import Node, Step, StepJob, StepOutput
from ..core.step_cache import CacheStep
from ..drivers.cancel import cancelled
from ..drivers.driver import Branch, BranchEnd

IN_FLIGHT = 32  # branches or items at once, unless said otherwise
GRACE = 1.0  # seconds that cancelled branches are waited for; the pools' cancel_grace


@dataclass(frozen=True, kw_only=True)
class ParallelStep(Step):
    """`parallel([...])`."""

    kind: ClassVar[str] = "parallel"

    branches: tuple[Step, ...]
    max_in_flight: int = IN_FLIGHT
    cancel_grace: float = GRACE

    @property
    def default_name(self) -> str:
        return "parallel"

    @property
    def parts(self) -> tuple[Step, ...]:
        return self.branches

    def _own_flow(self) -> Flow:
        flows = [branch.flow for branch in self.branches]
        where = f"step {self.name or self.default_name!r}"
        if self.into is None:
            return side_by_side(flows, where=where)
        reads = Reads()
        for flow in flows:
            reads |= flow.reads
        return Flow(reads, Writes.of((self.into,)))

    def collects(self, *, is_collected: bool) -> bool:
        return self.into is not None

    def check(self, *, is_collected: bool) -> None:
        _ = self.own_flow  # KeyClash, where the declared writes overlap
        _refuse_caches(self.branches, self.kind)

    async def perform(self, job: StepJob) -> StepOutput:
        def branch(node: Node) -> Branch:
            return lambda driver: step_runner.run_step(job.run, node, job.state, driver, job.deadline)

        ended = await job.driver.gather(
            [branch(node) for node in job.node.parts], limit=self.max_in_flight, grace=self.cancel_grace
        )
        done = all_done(ended, job.node.parts)
        records = [each.record for each in done]
        if self.into is not None:
            return composed([each.value for each in done], None, records)
        merged = self._merged(done, job.node.name)
        return composed(merged, merged, records)

    def _merged(self, done: Sequence[step_runner.StepEnd], name: str) -> dict[str, Any]:
        """Return all that the branches wrote; clashes are found before anything is merged (P3)."""
        seen: set[str] = set()
        clashes: set[str] = set()
        for each in done:
            clashes |= seen & each.writes.keys()
            seen |= each.writes.keys()
        if clashes:
            raise KeyClash(clashes, where=f"step {name!r}")
        return {key: value for each in done for key, value in each.writes.items()}


@dataclass(frozen=True, kw_only=True)
class ConditionalStep(Step):
    """`conditional(predicate, then, otherwise)`."""

    kind: ClassVar[str] = "conditional"

    condition: Condition
    branches: tuple[Step, ...]

    @property
    def default_name(self) -> str:
        return "conditional"

    @property
    def parts(self) -> tuple[Step, ...]:
        return self.branches

    def _own_flow(self) -> Flow:
        flows = [branch.flow for branch in self.branches]
        reads, writes = self.condition.reads, flows[0].writes
        for flow in flows:
            reads |= flow.reads.softened()
        writes = writes.either(flows[1].writes) if len(flows) > 1 else writes.softened()
        return Flow(reads, writes if self.into is None else Writes.of((self.into,)))

    def collects(self, *, is_collected: bool) -> bool:
        return is_collected or self.into is not None

    def check(self, *, is_collected: bool) -> None:
        _refuse_caches(self.branches, self.kind)

    async def perform(self, job: StepJob) -> StepOutput:
        holds = bool(await job.driver.call(self.condition.bound(job.state, job.node.name), job.deadline))
        taken = job.node.parts[0] if holds else job.node.parts[1] if len(job.node.parts) > 1 else None
        reason = "the condition held" if holds else "the condition did not hold"
        if taken is None:
            return StepOutput(None, {}, route="", reason=reason)
        done = await run_part(job, taken, job.state)
        return composed(done.value, done.writes, [done.record], reason=reason)


@dataclass(frozen=True, kw_only=True)
class MapStep(Step):
    """`map_each(field, step, into=...)`."""

    kind: ClassVar[str] = "map_each"

    field: str
    item: str
    each: Step
    max_in_flight: int = 8
    cancel_grace: float = GRACE

    @property
    def default_name(self) -> str:
        return f"each {self.field}"

    @property
    def parts(self) -> tuple[Step, ...]:
        return (self.each,)

    def _own_flow(self) -> Flow:
        reads = Reads(frozenset({self.field})) | self.each.flow.reads.without(self.item).softened()
        return Flow(reads, Writes.of((str(self.into),)))

    def collects(self, *, is_collected: bool) -> bool:
        return True

    def check(self, *, is_collected: bool) -> None:
        _refuse_caches((self.each,), self.kind)

    async def perform(self, job: StepJob) -> StepOutput:
        if self.field not in job.state:
            raise missing(self.field, job.node.name, job.state)
        items = job.state[self.field]
        if isinstance(items, str | bytes | Mapping) or not isinstance(items, Sequence):
            raise InvalidInput(
                f"{job.node.name!r} needs a list in {self.field!r}; it is a {type(items).__name__}.", field=self.field
            )
        part = job.node.parts[0]
        nodes = [step_runner.renamed(part, f"{part.name}[{i}]", i) for i in range(len(items))]

        def one(node: Node, value: Any) -> Branch:
            state = {**job.state, self.item: value}
            return lambda driver: step_runner.run_step(job.run, node, state, driver, job.deadline)

        jobs = [one(node, value) for node, value in zip(nodes, items, strict=True)]
        ended = await job.driver.gather(jobs, limit=self.max_in_flight, grace=self.cancel_grace) if jobs else []
        done = all_done(ended, nodes)
        return composed([each.value for each in done], None, [each.record for each in done])


@dataclass(frozen=True, kw_only=True)
class PipelineStep(Step):
    """A pipeline as a step: runs on a copy of the state, in the outer run's session; its writes are merged after it."""

    kind: ClassVar[str] = "pipeline"

    inner: Plan

    @property
    def default_name(self) -> str:
        return self.inner.name

    @property
    def parts(self) -> tuple[Step, ...]:
        return self.inner.steps

    def _own_flow(self) -> Flow:
        flow = self.inner.flow
        return flow if self.into is None else Flow(flow.reads, Writes.of((self.into,)))

    async def perform(self, job: StepJob) -> StepOutput:
        records: list[StepRecord] = []
        # The nodes bear the outer pipeline's names; what cache steps keep is the inner pipeline's, wherever it runs.
        sequence = StepSequence(job.node.parts, self.inner.sequence.reads, self.inner.sequence.stores)
        state = dict(job.state)
        try:
            written = await run_sequence(sequence, job.run, state, job.driver, job.deadline, records)
        except step_runner.StepFailed as failed:
            raise step_runner.PartsFailed(failed.step, failed.causes, records) from None
        return composed(written, written, records)


async def run_part(job: StepJob, node: Node, state: Mapping[str, Any]) -> step_runner.StepEnd:
    """Run the selected part of a composite step."""
    try:
        return await step_runner.run_step(job.run, node, state, job.driver, job.deadline)
    except step_runner.StepFailed as failed:
        raise step_runner.PartsFailed(failed.step, failed.causes, [failed.record]) from None


def all_done(ended: Sequence[BranchEnd], nodes: Sequence[Node]) -> list[step_runner.StepEnd]:
    """Return the ends of the branches.

    Raises:
        CallCancelled: none failed, and one was cancelled.
        PartsFailed: one failed; `causes` holds the failures of all, in the order in which they came (P4).
    """
    failed = sorted((each for each in ended if each.error is not None), key=lambda each: each.rank)
    if not failed:
        if any(each.is_cancelled for each in ended):  # by itself: something that a branch awaited was cancelled
            raise cancelled()
        return [each.value for each in ended]
    for each in failed:
        if each.error is not None and not isinstance(each.error, step_runner.StepFailed):
            raise each.error  # a cancellation, SystemExit, or a defect of ours
    errors = [each.error for each in failed if isinstance(each.error, step_runner.StepFailed)]
    children = [_record(each, node) for each, node in zip(ended, nodes, strict=True)]
    raise step_runner.PartsFailed(errors[0].step, [cause for error in errors for cause in error.causes], children)


def composed(
    value: Any, writes: Mapping[str, Any] | None, children: Sequence[StepRecord], *, reason: str = ""
) -> StepOutput:
    """Return the output of a composite step, with the summed usage of its parts."""
    routes = {child.route for child in children if child.route}
    return StepOutput(
        value,
        writes,
        route=routes.pop() if len(routes) == 1 else "mixed" if routes else "",
        usage=summed(child.usage for child in children),
        cached=bool(children) and all(child.cached for child in children),
        reason=reason,
        children=children,
    )


def _record(ended: BranchEnd, node: Node) -> StepRecord:
    if isinstance(ended.error, step_runner.StepFailed):
        return ended.error.record
    return ended.value.record if isinstance(ended.value, step_runner.StepEnd) else node.cancelled()


def _refuse_caches(steps: Sequence[Step], kind: str) -> None:
    if any(isinstance(step, CacheStep) for step in steps):
        raise SettingsError(f"A cache step keeps what comes before it; alone in a {kind} step it would keep nothing.")
