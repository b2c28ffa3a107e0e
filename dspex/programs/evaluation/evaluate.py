"""Score a program on examples: `evaluate`, and `aevaluate` for event loops."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ... import defaults
from ...loop_thread import LoopThread
from ...services.metric_limit import checked_limit
from ..examples.devset import devset_rows, input_names
from ..examples.example_jobs import Progress
from ..options import program_options
from .evaluated_program import EvaluatedProgram, evaluated
from .evaluation import Evaluation
from .evaluation_run import EvaluationRun
from .scorers import scorer_of

if TYPE_CHECKING:
    from ...pools.supervising import Supervising

END_S = 5.0  # that an evaluation which ends early gives to what runs
Metric = Callable[..., Any] | str | Mapping[str, Any]


def evaluate(
    program: Any,
    devset: Iterable[Any],
    metric: Metric,
    *,
    num_threads: int | None = None,
    max_errors: int | None = None,
    timeout: float | None = None,
    metric_timeout: float | None = None,
    on_progress: Progress | None = None,
    inputs: Sequence[str] | None = None,
    pool: str | None = None,
    supervisor: Supervising | None = None,
) -> Evaluation:
    """Return a program's score on examples, with each row; blocks.

    `program` is a program, a signature (which predicts), a `dspy.Module` (its class, a live one, its import path: see
    `module`), a pipeline, anything with `acall`, or a function of the inputs or of the example. Each row is one call by
    the program's own route and with its own options: natively in this process, or in a worker, over all workers of the
    pool. `num_threads` rows run at a time: None is as many as the pool's workers take, and 8 natively.

    `devset` holds mappings, or `dspy.Example`s; `inputs` names the fields that go in (default: the example's
    `with_inputs`, else the program's inputs). `metric(example, prediction)` is a function of this process, plain or
    asynchronous, which gets the very example that was given; the name of a built-in ("exact_match", "f1", ...); or
    "module:function" of the pool's `imports`, which runs in the workers of `pool` ("dspy"). A row that fails is a row
    with an error, and counts as 0.

    There is no time limit but the program's own for each call, unless `timeout` is given, in seconds, for the whole.
    `metric_timeout` bounds each call of the metric (600 s; math.inf is no limit): a row whose metric hangs has a
    `MetricTimeout` as its error.
    `on_progress` gets {"done", "total", "score", "errors", "row"} after each row.

    Raises:
        SettingsError, UnknownName, InvalidInput: what cannot be evaluated; nothing was spent.
        EvaluationFailed: no row could be scored, or `max_errors` rows failed.
        CallTimeout: `timeout` seconds passed.
        BudgetExceeded, PoolClosed: no further row could be asked.
        KeyboardInterrupt: rows that run are cancelled. This and the errors of a running evaluation have a `partial`:
            the Evaluation of the rows that were done.
    """
    given = (program, devset, metric, num_threads, max_errors, timeout, metric_timeout, inputs, pool, supervisor)
    run = _prepared(*given, awaits=False)
    loop, reports = LoopThread("dspex-evaluate-loop"), queue.SimpleQueue[dict[str, Any] | None]()
    try:
        future = loop.submit(run.run(reports.put))
        future.add_done_callback(lambda _: reports.put(None))
        while (report := reports.get(timeout=run.left())) is not None:
            if on_progress is not None:
                on_progress(report)
        found: Evaluation = future.result()
        return found
    except BaseException as error:  # also Ctrl-C: it carries the rows that are done
        if isinstance(error, queue.Empty):  # an asynchronous function of the program blocks the loop
            error = run.timed_out()
        loop.stop()  # which cancels what runs
        loop.join(END_S)
        raise run.ended(error)  # noqa: B904 - it is the same error
    finally:
        loop.stop()


async def aevaluate(
    program: Any,
    devset: Iterable[Any],
    metric: Metric,
    *,
    num_threads: int | None = None,
    max_errors: int | None = None,
    timeout: float | None = None,
    metric_timeout: float | None = None,
    on_progress: Progress | None = None,
    inputs: Sequence[str] | None = None,
    pool: str | None = None,
    supervisor: Supervising | None = None,
) -> Evaluation:
    """`evaluate`, awaited, on the running loop; cancelling the task cancels the rows that run.

    The CancelledError has the `partial` too. Of an own module it calls `aforward`, where there is one.
    """
    given = (program, devset, metric, num_threads, max_errors, timeout, metric_timeout, inputs, pool, supervisor)
    run = await asyncio.to_thread(_prepared, *given, awaits=True)  # it may start workers

    def report(facts: dict[str, Any]) -> None:
        if on_progress is not None:
            on_progress(facts)

    return await run.run(report)


def require_evaluation(
    program: Any,
    devset: Any,
    metric: Any,
    *,
    num_threads: int | None,
    max_errors: int | None,
    timeout: float | None,
    inputs: Sequence[str] | None,
    supervisor: Supervising | None,
    awaits: bool,
) -> None:
    """Check an evaluation as far as it can be without asking anybody.

    Raises:
        SettingsError, UnknownName, InvalidInput: it cannot be.
    """
    _prepared(program, devset, metric, num_threads, max_errors, timeout, None, inputs, None, supervisor, awaits=awaits)


def _prepared(
    program: Any,
    devset: Any,
    metric: Any,
    num_threads: int | None,
    max_errors: int | None,
    timeout: float | None,
    metric_timeout: float | None,
    inputs: Sequence[str] | None,
    pool: str | None,
    supervisor: Supervising | None,
    *,
    awaits: bool,
) -> EvaluationRun:
    """Return the evaluation, checked as far as it can be without asking anybody.

    Raises:
        SettingsError, UnknownName, InvalidInput: it cannot be.
    """
    program_options.require_seconds(timeout)
    limit = checked_limit(metric_timeout)
    if num_threads is not None:
        program_options.require_whole("num_threads", num_threads)
    if max_errors is not None:
        program_options.require_whole("max_errors", max_errors, 0)
    program_options.require_supervisor(supervisor)
    subject = evaluated(program, supervisor, awaits=awaits)
    rows = devset_rows(devset, input_names(inputs), subject.inputs)

    def workers() -> Supervising:
        own = subject.program.supervisor_used if isinstance(subject, EvaluatedProgram) else supervisor
        return own or defaults.default_supervisor()

    at_once = min(num_threads or subject.at_once, len(rows))
    scorer = scorer_of(metric, subject, workers, pool, at_once=at_once, awaits=awaits)
    subject.require(rows)
    scorer.require(rows, subject)
    return EvaluationRun(subject, scorer, rows, at_once, max_errors, timeout, limit)
