"""Run the steps of a pipeline one after another, for threads and event loops alike (P2, P3).

Everything here awaits only its `Driver`, which blocks or awaits (see `drivers/`); `step_runner` runs each step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ... import spans
from ...errors import PipelineError
from ..drivers.driver import Driver
from .plan import Plan, StepSequence
from .results import Result, Status, StepRecord, Steps
from .run import PipelineRun
from .run_events import EventKind
from .step_cache import key_of
from .step_runner import StepFailed, run_step

_MESSAGE_MOST = 300  # characters of a cause that a PipelineError's text quotes


async def run_whole(plan: Plan, run: PipelineRun, inputs: Mapping[str, Any], driver: Driver) -> Result:
    """Run a pipeline.

    Raises:
        PipelineError: a step failed; `result` is what was done until then.
        CallCancelled: the run was cancelled.
    """
    state = dict(inputs)
    records: list[StepRecord] = []
    try:
        run.emit(EventKind.RUN_STARTED, facts={"inputs": sorted(state)})
        with run.account, spans.block(f"pipeline {plan.name}"):
            await run_sequence(plan.sequence, run, state, driver, run.deadline, records)
    except StepFailed as failed:
        raise _pipeline_error(
            plan.name, failed, len(plan.sequence.nodes), run.result(state, records)
        ) from failed.causes[0]
    finally:
        driver.close()
        run.close()
    result = run.result(state, records)
    run.emit(EventKind.RUN_FINISHED, result=result)
    return result


async def run_sequence(
    sequence: StepSequence,
    run: PipelineRun,
    state: dict[str, Any],
    driver: Driver,
    deadline: float,
    records: list[StepRecord],
) -> dict[str, Any]:
    """Run steps in turn on `state`, which they change, and return what they wrote. `records` grows as they end."""
    written: dict[str, Any] = {}
    key = key_of(state, sequence.reads, run.lm_identity()) if sequence.stores else None
    first = _served(sequence, key, state, written, records)
    for node in sequence.nodes[first:]:
        try:
            done = await run_step(run, node, state, driver, deadline)
        except StepFailed as failed:
            records.append(failed.record)
            raise
        records.append(done.record)
        state.update(done.writes)
        written.update(done.writes)
        if key is not None and node.index in sequence.stores and not any(map(_fell_back, Steps(records).flat())):
            sequence.stores[node.index].put(key, written)
    return written


def _served(
    sequence: StepSequence, key: bytes | None, state: dict[str, Any], written: dict[str, Any], records: list[StepRecord]
) -> int:
    """Apply the latest cached step outputs for these inputs; return the index of the first step that has to run."""
    for index in sorted(sequence.stores, reverse=True) if key is not None else ():
        writes = sequence.stores[index].get(key)  # type: ignore[arg-type]  # it is not None here
        if writes is None:
            continue
        state.update(writes)
        written.update(writes)
        reason = f"{sequence.nodes[index].name!r} had kept what it wrote"
        records += [
            node.record(Status.KEPT, route="cache", cached=True, reason=reason) for node in sequence.nodes[:index]
        ]
        own = sequence.nodes[index].record(
            Status.DONE, route="cache", cached=True, wrote=tuple(writes), reason="served"
        )
        records.append(own)
        return index + 1
    return 0


def _fell_back(record: StepRecord) -> bool:
    return record.status is Status.FELL_BACK


def _pipeline_error(name: str, failed: StepFailed, count: int, result: Result) -> PipelineError:
    """Return the caller's error: the step, its place, the first cause, and how far the run had come."""
    index = failed.record.index
    inner = "" if failed.record.name == failed.step else f", in {failed.record.name!r}"
    more = len(failed.causes) - 1
    others = f" ({more} more failure{'s' if more > 1 else ''} in causes.)" if more else ""
    return PipelineError(
        f"Step {failed.step!r} (number {index} of 0 to {count - 1}{inner}) of pipeline {name!r} failed: "
        f"{_quoted(failed.causes[0])}{others} The state has {', '.join(map(repr, result.state)) or 'nothing'}.",
        step=failed.step,
        causes=failed.causes,
        result=result,
    )


def _quoted(cause: BaseException) -> str:
    lines = str(cause).splitlines()
    text = lines[0] if lines else ""
    text = text if len(text) <= _MESSAGE_MOST else f"{text[:_MESSAGE_MOST]}..."
    return f"{type(cause).__name__}: {text}" if text else f"{type(cause).__name__}."
