"""Optimize a program: checked before anything is paid for, with progress; an error is never a success.

The generator runs on the worker's main thread, where a signal can interrupt it, and yields progress; the optimizer
runs in a thread beside it. Baseline and result are scored by `scored_rows.scored` on the same examples. DSPy's
optimizers take any Exception for a score of zero; here a job whose metric or LM only failed is `OptimizationFailed`,
and one that ran out of memory raises MemoryError.
"""

from __future__ import annotations

import contextvars
import random
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NoReturn

import dspy

from ...context import Context
from ...failure import Cancelled, Failure
from ..calls.call_context import CallUsage
from ..code.host_values import values_from
from ..commands import Programs
from ..dspy_errors import failure_of, translated
from ..evaluating.scored_rows import EvaluatedRow, examples_from, percent, scored
from ..lms.worker_lm import secrets_of
from ..metrics.host_metrics import name_predictors
from ..metrics.metric_calls import metric_from
from ..metrics.metric_clock import MetricClock
from ..metrics.metric_scores import title_of
from ..modules.awaited_programs import take_plain_calls
from ..modules.module_state import dump_state
from ..modules.program_calls import Record, Spec, call_options, configured
from ..modules.program_loop import THREADS
from ..optimizers import watched_optimizers
from ..optimizers.known_optimizers import name_of, optimizer_named, prepared, split
from ..optimizers.optimizer_calls import DEFAULT_THREADS, Compiling, OptimizerTask
from ..optimizers.planned_trials import planned_trials
from ..package_versions import versions
from ..values.output_encoder import cleaned
from ..values.wire_values import to_wire
from .candidate_reports import VALIDATION
from .given_options import OptionMaker, records_in
from .job_watcher import JobWatcher
from .optimizer_log import LogReader, reading_log
from .progress import JobEnded, Progress, ProgressQueue

_LOOK_EVERY = 0.1  # seconds between looks at whether the caller has gone
_BEAT_EVERY = 5.0  # seconds without news after which a job says that it lives
_START_S = 0.001  # how long a thread takes to start
_JOIN_S = 1.0  # how long threads of a cancelled optimizer get to notice


def optimize(
    programs: Programs,
    ctx: Context,
    spec: Spec,
    trainset: Sequence[Mapping[str, Any]],
    optimizer: str,
    metric: Mapping[str, Any],
    lm: Record | None,
    valset: Sequence[Mapping[str, Any]] | None = None,
    inputs: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    prompt_lm: Record | None = None,
    adapter: str | Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    rollout_id: int | None = None,
    plain: Sequence[str] = (),
    carried: bytes | None = None,
    attempt: int = 1,
) -> Generator[dict[str, Any], None, dict[str, Any]]:
    """Yield progress; the return value holds the state of the best program, its score and the baseline's, in percent.

    `attempt` counts the workers that the job has had: the same job, so that it is another call.
    `config` and `rollout_id` are of the program's own calls, not of those that propose instructions. `carried` are the
    values of the host's examples that are no plain data, by list and row; its `plain` labels are taken as they are.

    Raises:
        Failure: UnknownName, InvalidInput, MissingDependency before anything is paid; OptimizationFailed after.
        MemoryError: the worker ran out of memory on the way.
    """
    asked = programs.lms.get(lm)
    if asked is None:
        raise Failure("SettingsError", "An optimizer needs an LM, and none came with the job.", key="lm")
    imports = programs.imports_of(ctx)
    values = values_from(carried, imports)
    making = OptionMaker(imports, values.get("options", {}), programs.lms.get, _teaching(programs, ctx, lm, adapter))
    chosen, own = optimizer_named(optimizer, making.made(options or {}))
    built = programs.modules.make(spec, imports, lambda: programs.calling(ctx, lm, adapter, CallUsage(), spec=spec))
    take_plain_calls(built.program, built.loop)
    name_predictors(built.program)
    names = inputs or built.inputs
    types = built.annotations
    examples = examples_from(trainset, names, types, title="train", plain=plain, objects=values.get("train", ()))
    later = examples_from(valset or (), names, types, title="val", plain=plain, objects=values.get("val", ()))
    learned, validated = split(chosen, examples, later or None, own)
    call_usage, reports = CallUsage(), ProgressQueue()
    secrets = [secret for record in (lm, prompt_lm, *records_in(options)) for secret in secrets_of(record)]
    progress = Progress(ctx, call_usage, reports.put, tuple(secrets), title_of(metric))
    watcher = JobWatcher.of(progress, learned, validated)
    clock = MetricClock(metric)
    counted = progress.counted(metric_from(metric, imports, clock))
    seed = own.get("seed", chosen.seed)
    given = {"seed": seed, **own} if "seed" in chosen.options else own
    task_lm = configured(built, asked, call_options(config, rollout_id))
    prompting = programs.lms.get(prompt_lm) or asked
    job = OptimizerTask(built.program, counted, learned, validated, task_lm, prompting, given, has_valset=bool(later))
    compiling = prepared(optimizer, chosen, job)
    progress.planned(planned_trials(name_of(optimizer), given))
    watched_optimizers.install()
    random.seed(seed)

    def work() -> dict[str, Any]:
        settings = {"num_threads": _threads(given), **watcher.dspy_settings()}
        ctx.conceal(*progress.secrets)
        calling = programs.calling(ctx, lm, adapter, call_usage, spec=spec, **settings)
        with calling, translated(progress.secrets), dspy.context(lm=task_lm):
            return _worked(compiling, job, watcher, given)

    with reading_log(LogReader(progress, watcher.simba)):
        found = yield from _beside(ctx, work, reports, progress, clock)
    return {"spec": {**spec, "state": None}, **found, "errors": progress.errors, "versions": versions()}


def _worked(
    compiling: Compiling, job: OptimizerTask, watcher: JobWatcher, options: Mapping[str, Any]
) -> dict[str, Any]:
    progress = watcher.progress
    progress.enter("baseline")
    baseline = _score(job.program, job, watcher, options, "baseline")
    progress.enter("optimize")
    best = compiling()
    progress.enter("score")
    score = _score(best, job, watcher, options, "result")
    found = {"state": dump_state(best), "score": score, "baseline_score": baseline, "trials": progress.trials}
    return found | ({"details": details} if (details := _details(best)) else {})


def _details(best: dspy.Module) -> dict[str, Any]:
    """Return what an optimizer kept of its run with `track_stats`, in plain data."""
    if (detailed := getattr(best, "detailed_results", None)) is not None:
        return cleaned(to_wire(detailed.to_dict()))  # type: ignore[no-any-return]
    found = {}
    for name in ("results_best", "results_latest"):  # COPRO's, by predictor
        if (stats := getattr(best, name, None)) is not None:
            found[name] = list(stats.values())
    return cleaned(to_wire(found))  # type: ignore[no-any-return]


def _teaching(
    programs: Programs, ctx: Context, lm: Record | None, adapter: str | Mapping[str, Any] | None
) -> Callable[[Mapping[str, Any]], dspy.Module]:
    """Return what makes a teacher: its predictors have its own language model, if it has one."""

    def teacher(given: Mapping[str, Any]) -> dspy.Module:
        spec, own = given["spec"], given.get("lm")
        imports = programs.imports_of(ctx)
        built = programs.modules.make(
            spec, imports, lambda: programs.calling(ctx, own or lm, adapter, CallUsage(), spec=spec)
        )
        take_plain_calls(built.program, built.loop)
        for predictor in built.program.predictors() if own is not None else ():
            predictor.lm = predictor.lm or programs.lms.get(own)
        return built.program

    return teacher


def _score(
    program: dspy.Module, job: OptimizerTask, watcher: JobWatcher, options: Mapping[str, Any], kind: str
) -> float:
    """Return the program's score on the validation examples, which is reported as a candidate's of this kind.

    Raises:
        Failure: OptimizationFailed, when not one example could be scored.
    """
    context, progress, began = contextvars.copy_context(), watcher.progress, time.monotonic()
    rows: list[EvaluatedRow | None] = [None] * len(job.valset)
    for index, row in scored(program, job.valset, job.metric, context, _threads(options)):
        progress.check()
        rows[index] = row
    done = [row for row in rows if row is not None]
    if all(row.error is not None for row in done):
        raise _failed(progress, done[0].error)
    score = percent(sum(row.score for row in done), len(done))
    scores = [row.score for row in done]
    watcher.reports.report(program, kind, VALIDATION, job.valset, scores, score=score, began=began)
    return score


def _failed(progress: Progress, error: BaseException | None) -> Failure:
    errors = progress.errors
    first = progress.first_error or error
    told = None if first is None else failure_of(first, progress.secrets)
    cause = "" if told is None else f" The first error was {told.kind}: {told.message}"
    return Failure(
        "OptimizationFailed",
        f"No example could be scored: the metric {progress.title} failed {errors['metric']} and the language model "
        f"{errors['lm']} times.{cause}",
        metric_errors=errors["metric"],
        lm_errors=errors["lm"],
    )


def _beside(
    ctx: Context, work: Any, reports: ProgressQueue, progress: Progress, clock: MetricClock
) -> Generator[dict[str, Any], None, dict[str, Any]]:
    """Run `work` in a thread, yield its reports, return its result or raise its error."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # it belongs to the thread that yields
            outcome.append(error)

    before = set(threading.enumerate())
    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), name="dspex-optimizer", daemon=True)
    thread.start()
    told_at = time.monotonic()
    try:
        while True:
            event = reports.take(_LOOK_EVERY if thread.is_alive() else 0)
            ctx.check_cancelled()
            if (hung := clock.overdue()) is not None:
                yield {"hung": hung}
                _await_cancel(ctx)
            if event is None and time.monotonic() - told_at >= _BEAT_EVERY:
                event = progress.beat()
            if event is not None:
                yield event
                told_at = time.monotonic()
            elif not thread.is_alive():
                break
    except (Cancelled, GeneratorExit):
        progress.fatal = progress.fatal or Cancelled()
        raise
    finally:
        _await_threads(before)
    return _result(outcome[0], progress)


def _await_cancel(ctx: Context) -> NoReturn:
    """Wait until the parent ends this call, and this process, where a metric hangs.

    Raises:
        Cancelled: it has.
    """
    while True:
        ctx.check_cancelled()
        time.sleep(_LOOK_EVERY)


def _result(outcome: Any, progress: Progress) -> dict[str, Any]:
    if isinstance(outcome, JobEnded):
        raise outcome.cause
    if progress.end is not None:  # in some thread, and the optimizer made a score of it
        raise progress.end
    if isinstance(outcome, Failure | MemoryError) or (
        isinstance(outcome, BaseException) and not isinstance(outcome, Exception)
    ):
        raise outcome
    if isinstance(outcome, Exception):
        raise _ended(outcome, progress)
    found: dict[str, Any] = outcome
    return found


def _ended(error: Exception, progress: Progress) -> BaseException:
    """Return an optimizer's own exception: the cause of its failing examples where that is what stopped it."""
    hidden = progress.last_error or progress.call_usage.last
    if hidden is None:
        return error
    failed = _failed(progress, hidden)
    failed.__cause__ = error
    return failed


def _await_threads(before: set[threading.Thread]) -> None:
    # DSPy's executors are left without waiting; each of their threads ends at its next check.
    # Those of the program's loop live as long as the program.
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith(THREADS):
            continue
        while not thread.is_alive() and thread in threading.enumerate():
            time.sleep(_START_S)  # another thread is starting it: it cannot be joined yet
        if thread.is_alive():
            thread.join(_JOIN_S)


def _threads(options: Mapping[str, Any]) -> int:
    return int(options.get("num_threads") or DEFAULT_THREADS)
