"""Score a program on examples, in threads of our own; every row's outputs or error are kept.

DSPy's Evaluate gives 0.0 for what failed, keeps no error, and runs slow rows twice (stragglers are resubmitted). This
gives the same score, in percent, and says what happened in each row. Cancelling ends the rows' LM waits first.
"""

from __future__ import annotations

import contextvars
import copy
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import dspy

from ...context import Context
from ...failure import Failure
from ..calls.call_context import CallUsage
from ..commands import Programs
from ..dspy_errors import failure_of, invalid_input, is_out_of_memory
from ..lms.worker_lm import secrets_of
from ..metrics.metric_calls import metric_from
from ..metrics.metric_scores import ROW, BadMetric, Metric, score_of
from ..modules.built_program import REWARDED, BuiltProgram, given
from ..modules.program_calls import Record, Spec, call_options, configured, result_of

DEFAULT_THREADS = 8


@dataclass(frozen=True, slots=True)
class EvaluatedRow:
    """The result of one example."""

    score: float
    outputs: dict[str, Any] | None = None
    error: BaseException | None = None

    def to_wire(self, secrets: Iterable[str] = ()) -> dict[str, Any]:
        """Return what the caller gets, without `secrets` in an error's text."""
        if self.error is None:
            return {"score": self.score, "outputs": self.outputs}
        failure = failure_of(self.error, secrets)
        return {"score": self.score, "error": {"kind": failure.kind, "message": failure.message}}


def evaluate(
    programs: Programs,
    ctx: Context,
    spec: Spec,
    devset: Sequence[Mapping[str, Any]],
    metric: Mapping[str, Any],
    lm: Record | None = None,
    adapter: str | Mapping[str, Any] | None = None,
    num_threads: int | None = None,
    inputs: Sequence[str] | None = None,
    config: Mapping[str, Any] | None = None,
    rollout_id: int | None = None,
) -> Generator[dict[str, Any], None, dict[str, Any]]:
    """Yield {"done", "total", "score"} after each row; the return value holds the score and every row in order."""
    options, imports = call_options(config, rollout_id), programs.imports_of(ctx)
    built = programs.modules.make(spec, imports) if options else programs.modules.get(spec, imports)
    examples = examples_from(devset, inputs or built.inputs, built.annotations)
    scorer = metric_from(metric, imports)
    rows: list[EvaluatedRow | None] = [None] * len(examples)
    with programs.calling(ctx, lm, adapter, CallUsage(), spec=spec), _configured(built, options):
        context = contextvars.copy_context()
    total = 0.0
    for done, (index, row) in enumerate(scored(built.program, examples, scorer, context, num_threads), start=1):
        rows[index] = row
        total += row.score
        yield {"done": done, "total": len(examples), "score": percent(total, done)}
    return {
        "score": percent(total, len(examples)),
        "results": [row.to_wire(secrets_of(lm)) for row in rows if row is not None],
    }


@contextmanager
def _configured(built: BuiltProgram, options: Mapping[str, Any]) -> Generator[None]:
    with dspy.context(lm=configured(built, dspy.settings.lm, options)):
        yield


def scored(
    program: dspy.Module,
    examples: Sequence[dspy.Example],
    metric: Metric,
    context: contextvars.Context,
    num_threads: int | None = None,
) -> Generator[tuple[int, EvaluatedRow], None, None]:
    """Yield (index, row) as rows end, in any order; each runs in a copy of `context`.

    Raises:
        MemoryError: a row raised it; what it left behind cannot be trusted.
        BadMetric: no row can be scored.
        Cancelled: the call was cancelled.
    """
    with ThreadPoolExecutor(max_workers=num_threads or DEFAULT_THREADS, thread_name_prefix="dspex-rows") as pool:
        futures: dict[Future[EvaluatedRow], int] = {
            pool.submit(context.copy().run, _row, program, example, metric): index
            for index, example in enumerate(examples)
        }
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def examples_from(
    rows: Iterable[Mapping[str, Any]],
    inputs: Sequence[str],
    annotations: Mapping[str, Any],
    *,
    title: str = "",
    plain: Sequence[str] = (),
    objects: Sequence[Mapping[str, Any]] = (),
) -> list[dspy.Example]:
    """Return DSPy's examples for wire rows; `inputs` names the fields that go in, the others are labels.

    With a `title` they know their place in the list that the parent has under it. `objects` are the fields of each row
    that came as Python objects; `plain` labels are taken as they are too, as in DSPy. Others get the types that
    `annotations` says.

    Raises:
        Failure: InvalidInput, when a row lacks an input or does not fit its type.
    """
    examples = []
    types = {name: kind for name, kind in annotations.items() if name in inputs or name not in plain}
    for number, row in enumerate(rows):
        more = objects[number] if number < len(objects) else {}
        missing = [name for name in inputs if name not in row and name not in more]
        if missing:
            raise invalid_input(f"Row {number} lacks the input(s) {', '.join(missing)}.", missing[0])
        values = {name: given(name, value, types.get(name, Any)) for name, value in row.items()} | dict(more)
        example = dspy.Example(**values).with_inputs(*inputs)
        if title:
            setattr(example, ROW, (title, number))
        examples.append(example)
    return examples


def percent(total: float, count: int) -> float:
    """Return a mean in percent, rounded as DSPy rounds it."""
    return round(100 * total / count, 2) if count else 0.0


def _row(program: dspy.Module, example: dspy.Example, metric: Metric) -> EvaluatedRow:
    if type(program) in REWARDED:  # they count their failures on themselves: one row's would be another's
        program = copy.copy(program)
    try:
        prediction = cast("dspy.Prediction | None", program(**example.inputs()))
        if prediction is None and type(program) in REWARDED:
            raise Failure("NoPrediction", f"{type(program).__name__} gave no prediction: every attempt failed.")
        score = score_of(metric(example, prediction))
        is_named = isinstance(prediction, dspy.Example | Mapping)
        return EvaluatedRow(score, result_of(prediction)["outputs"] if is_named else None)
    except Exception as error:  # a failed row is a row of the result
        if is_out_of_memory(error) or isinstance(error, BadMetric):
            raise
        return EvaluatedRow(0.0, error=error)
