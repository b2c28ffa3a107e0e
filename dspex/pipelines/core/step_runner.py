"""Run one step: its condition, its attempts and its fallback (P7); for threads and event loops alike.

Everything here awaits only its `Driver`; what belongs to a run is in its `PipelineRun` (P9).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ... import spans
from ...errors import InvalidReturn, StepTimeout
from ...lm.usage import Account
from ..drivers.driver import Driver, Expired, is_cancellation
from .parameters import Condition
from .results import Status, StepRecord, Steps
from .run import PipelineRun
from .run_events import EventKind
from .step import Node, StepJob, StepOutput


@dataclass(frozen=True, slots=True)
class StepEnd:
    """The end of a step: its record, its value for a collecting parent, and its writes."""

    record: StepRecord
    value: Any = None
    writes: Mapping[str, Any] = field(default_factory=dict)


class PartsFailed(Exception):
    """Parts of a composite step failed: `causes`, the first one first, and the records of its parts."""

    def __init__(self, step: str, causes: Sequence[BaseException], children: Sequence[StepRecord]) -> None:
        super().__init__(step)
        self.step = step
        self.causes = tuple(causes)
        self.children = tuple(children)


class StepFailed(Exception):
    """A step failed after its attempts and fallback. `step` is the innermost one that failed first."""

    def __init__(self, step: str, causes: Sequence[BaseException], record: StepRecord) -> None:
        super().__init__(step)
        self.step = step
        self.causes = tuple(causes)
        self.record = record


async def run_step(run: PipelineRun, node: Node, state: Mapping[str, Any], driver: Driver, deadline: float) -> StepEnd:
    """Run one step: condition, attempts, fallback (P7).

    Raises:
        StepFailed: it came to nothing.
    """
    with spans.block(f"step {node.name}", **{"dspex.step.kind": node.step.kind}):
        return await _run_step(run, node, state, driver, deadline)


async def _run_step(run: PipelineRun, node: Node, state: Mapping[str, Any], driver: Driver, deadline: float) -> StepEnd:
    began = time.monotonic()
    driver.check()
    condition = node.step.policy.when
    if condition is not None and not await _holds(run, node, condition, state, driver, deadline):
        record = node.record(Status.SKIPPED, reason="its condition did not hold")
        run.emit(EventKind.STEP_SKIPPED, node.name, record=record)
        return StepEnd(record)
    run.emit(EventKind.STEP_STARTED, node.name)
    tried = await _try(run, node, state, driver, deadline)
    if tried.made is not None:
        done = _step_end(node, tried.made, tried, state, began)
    elif node.fallback is not None and time.monotonic() < deadline:
        done = await _fall_back(run, node, node.fallback, tried, state, driver, deadline, began)
    else:
        raise _failed(run, node, tried, began)
    run.emit(EventKind.STEP_FINISHED, node.name, record=done.record)
    return done


@dataclass(slots=True)
class _Attempts:
    """The attempts of a step: the output of the last one, or the error of each."""

    attempts: int = 0
    made: StepOutput | None = None
    writes: Mapping[str, Any] = field(default_factory=dict)
    errors: list[BaseException] = field(default_factory=list)
    last: BaseException | None = None
    culprit: str = ""
    children: Sequence[StepRecord] = ()
    account: Account = field(default_factory=lambda: Account("step"))


async def _holds(
    run: PipelineRun, node: Node, condition: Condition, state: Mapping[str, Any], driver: Driver, deadline: float
) -> bool:
    began = time.monotonic()
    try:
        return bool(await driver.call(condition.bound(state, node.name), deadline))
    except Expired:
        error: Exception = _out_of_time(run, node, began, deadline)
    except Exception as raised:  # a step runs anybody's code; its policy decides
        if is_cancellation(raised):
            raise
        error = raised
    raise _failed(run, node, _Attempts(errors=[error], culprit=node.name), began)


async def _try(run: PipelineRun, node: Node, state: Mapping[str, Any], driver: Driver, deadline: float) -> _Attempts:
    """Attempt it until it works, may not be tried again, or the time of all attempts is up."""
    began = time.monotonic()
    limit = node.step.policy.timeout
    until = deadline if limit is None else min(deadline, began + limit)
    tried = _Attempts()
    while True:
        error: Exception
        causes: Sequence[BaseException]
        tried.culprit = node.name
        if time.monotonic() >= until:
            error = _out_of_time(run, node, began, deadline)
            causes = [error]
        else:
            tried.attempts += 1
            try:
                driver.check()
                with tried.account:
                    tried.made = await node.step.perform(StepJob(run, node, state, driver, until))
                tried.writes = _writes(node, tried.made)
                return tried
            except PartsFailed as failed:
                causes, tried.children, tried.culprit = failed.causes, failed.children, failed.step
            except Expired:
                causes = [_out_of_time(run, node, began, deadline)]
            except Exception as raised:  # as above, for the fallback
                if is_cancellation(raised):
                    raise
                causes = [raised]
        tried.made = None
        tried.errors += causes
        tried.last = causes[0]
        if time.monotonic() >= until or tried.attempts > node.step.retries() or not node.step.may_retry(tried.last):
            return tried


async def _fall_back(
    run: PipelineRun,
    node: Node,
    instead: Node,
    tried: _Attempts,
    state: Mapping[str, Any],
    driver: Driver,
    deadline: float,
    began: float,
) -> StepEnd:
    """Run the fallback, which sees `error`; what it gives stands for what the step would have given."""
    try:
        done = await run_step(run, instead, {**state, "error": tried.last}, driver, deadline)
    except StepFailed as failed:
        tried.errors += failed.causes
        tried.children = [*tried.children, failed.record]
        raise _failed(run, node, tried, began) from None
    if done.record.status is Status.SKIPPED:
        raise _failed(run, node, tried, began)
    into = node.step.into
    writes = {into: done.value} if into is not None and instead.step.into is None else done.writes
    record = node.record(
        Status.FELL_BACK,
        route=done.record.route,
        worker=done.record.worker,
        generation=done.record.generation,
        attempts=tried.attempts,
        reason=f"fell back after {type(tried.last).__name__}",
        **_times_since(began),
        usage=done.record.usage,
        cost_usd=_together(tried.account.cost, done.record.cost_usd),
        optimized=done.record.optimized,
        extra=done.record.extra,
        wrote=tuple(writes),
        overwrote=tuple(name for name in writes if name in state),
        errors=tuple(tried.errors),
        children=Steps([*tried.children, done.record]),
    )
    return StepEnd(record, done.value, writes)


def _step_end(node: Node, made: StepOutput, tried: _Attempts, state: Mapping[str, Any], began: float) -> StepEnd:
    again = f"tried again after {type(tried.last).__name__}" if tried.last is not None else ""
    record = node.record(
        Status.DONE,
        route=made.route,
        worker=made.worker,
        generation=made.generation,
        attempts=tried.attempts,
        reason="; ".join(filter(None, (made.reason, again))),
        **_times_since(began),
        usage=made.usage,
        cost_usd=tried.account.cost,
        cached=made.cached,
        optimized=made.optimized,
        extra=made.extra,
        wrote=tuple(tried.writes),
        overwrote=tuple(name for name in tried.writes if name in state),
        errors=tuple(tried.errors),
        children=Steps(made.children),
    )
    return StepEnd(record, made.value, tried.writes)


def _together(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _failed(run: PipelineRun, node: Node, tried: _Attempts, began: float) -> StepFailed:
    record = node.record(
        Status.FAILED,
        attempts=tried.attempts,
        reason=f"failed with {type(tried.errors[0]).__name__}",
        **_times_since(began),
        cost_usd=tried.account.cost,
        errors=tuple(tried.errors),
        children=Steps(tried.children),
    )
    run.emit(EventKind.STEP_FAILED, node.name, record=record, error=tried.errors[0])
    return StepFailed(tried.culprit or node.name, tried.errors, record)


def _writes(node: Node, made: StepOutput) -> dict[str, Any]:
    """Return what goes into the state (P2).

    Raises:
        InvalidReturn: the value has no name, or `keep` asks for what is not there.
    """
    step = node.step
    there = {"usage": made.usage, **made.extra}
    if lacking := [name for name in step.keep if name not in there and name not in (made.writes or {})]:
        raise InvalidReturn(
            f"The step {node.name!r} is to keep {lacking[0]!r}; beside what it writes there is "
            f"{', '.join(map(repr, there))}."
        )
    kept = {name: there[name] for name in step.keep if name in there}
    if step.into is not None:
        return {step.into: made.value, **kept}
    if made.writes is None and not node.is_collected:
        raise InvalidReturn(f"The step {node.name!r} gave a value without a name: give into='...'.")
    return {**(made.writes or {}), **kept}


def _out_of_time(run: PipelineRun, node: Node, began: float, deadline: float) -> StepTimeout:
    limit = node.step.policy.timeout
    if limit is not None and began + limit <= deadline:
        return StepTimeout(node.name, timeout=limit, whose="step")
    return StepTimeout(node.name, timeout=run.timeout if run.timeout is not None else deadline - began, whose="run")


def renamed(node: Node, name: str, index: int) -> Node:
    """Return the node under another name: one of the many times that a step of `map_each` runs."""
    return replace(node, name=name, index=index)


def _times_since(began: float) -> dict[str, float]:
    """Return a record's `seconds`, and when it began on `time.time()`'s clock."""
    seconds = time.monotonic() - began
    return {"seconds": seconds, "began": time.time() - seconds}
