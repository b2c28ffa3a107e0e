"""Optimize programs in the capped pool; the result is served like any other program.

best = dspex.optimize("question -> answer", trainset, metric=my_metric, on_progress=print)
best.score, best.baseline_score
best(question="...")
best.save("qa.json"); dspex.load("qa.json")
"""

from __future__ import annotations

import asyncio
import functools
import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

from .. import defaults
from ..errors import InvalidInput
from ..services.metrics import MetricJob
from ..services.services import Services, services_of
from . import program_options, worker_answers
from .asked_program import asked_program, is_open, known_inputs
from .devset import as_example, declared_inputs, input_names
from .factories import predictor
from .jobs import Progress, crossed_examples, followed, plain_labels
from .native_route import default_adapter
from .optimized import Optimized
from .optimizer_options import OptimizerName, OptimizerOptions, require_optimizer
from .program import Program
from .routing import OPTIMIZER_POOL
from .saved_file import checked_state
from .saving import rendered_prefix_hash

if TYPE_CHECKING:
    from ..adapters.adapter_names import Adapter
    from ..defaults import LMLike
    from ..pools.supervisor import Supervisor
    from .factories import Asked
    from .program import S

Examples = Sequence[Mapping[str, Any]]
Metric = Callable[..., Any] | str | Mapping[str, Any]


class OptimizeOptions(OptimizerOptions, total=False):
    """The keywords of `optimize`, for `aoptimize`."""

    optimizer: OptimizerName
    metric: Metric | None
    valset: Examples | None
    on_progress: Progress | None
    timeout: float | None
    lm: LMLike | None
    prompt_lm: LMLike | None
    adapter: Adapter | None
    inputs: Sequence[str] | None
    supervisor: Supervisor | None
    session: str | None


def optimize(
    program: Asked[S],
    trainset: Examples,
    *,
    optimizer: OptimizerName = "miprov2",
    metric: Metric | None = None,
    valset: Examples | None = None,
    on_progress: Progress | None = None,
    timeout: float | None = None,
    lm: LMLike | None = None,
    prompt_lm: LMLike | None = None,
    adapter: Adapter | None = None,
    inputs: Sequence[str] | None = None,
    supervisor: Supervisor | None = None,
    session: str | None = None,
    **options: Unpack[OptimizerOptions],
) -> Optimized[S]:
    """Optimize a program (or a signature) in the `mipro` pool; blocks, and calls `on_progress` with each report.

    `trainset` and `valset` are lists of {field: value}. `metric` is a built-in's name ("exact_match", "f1", ...), an
    import path "module:function" from the pool's `imports`, or a function of this process. A function is called as DSPy
    calls it: (example, prediction), with `trace` while demonstrations are collected, and with `pred_name` and
    `pred_trace` in GEPA if it has parameters for them; other parameters keep their defaults. `timeout` None is no
    limit. Other options are the optimizer's own (`num_candidates`, `num_trials`, `auto`, `seed`, ...).

    Raises:
        UnknownName, SettingsError, InvalidInput: an optimizer, option, metric or example that cannot be; nothing was
            spent.
        MissingDependency: the optimizer needs a package that the workers lack; nothing was spent.
        OptimizationFailed: it ended with nothing but errors of the metric or the model.
        WorkerMemoryExceeded, WorkerDied, CallTimeout: as any call.
    """
    require_optimizer(optimizer, options)
    program_options.require_seconds(timeout)
    student = _student(program, lm, adapter, supervisor)
    learned, held_out = _listed(trainset, "trainset"), None if valset is None else _listed(valset, "valset")
    names = _named_inputs(student, [*learned, *(held_out or ())], inputs)
    examples = _examples(student, learned, held_out, names)
    job = _metric_job(student, learned, held_out, names)
    services = services_of(student.supervisor_used)
    arguments = {
        **examples,
        **_models(student, prompt_lm, services),
        "config": dict(student.config_used),
        "rollout_id": student.rollout_id,
        "optimizer": optimizer,
        "options": dict(options),
    }
    with services.metrics.described(metric, job) as described, student.registered(services):
        arguments |= {"spec": student.to_wire() | student.wire_lms(services), "metric": described}
        pool = student.supervisor_used.pool(OPTIMIZER_POOL)
        limit = math.inf if timeout is None else timeout
        is_trusted = not student.is_named_by_file
        stream = pool.stream("optimize", arguments, timeout=limit, session=session, is_trusted=is_trusted)
        value, worker = followed(stream, on_progress)
        return _optimized(student, optimizer, worker_answers.optimized(value, worker), worker)


async def aoptimize(program: Asked[S], trainset: Examples, **options: Unpack[OptimizeOptions]) -> Optimized[S]:
    """`optimize`, awaited; cancelling the task cancels the job."""
    stopped = threading.Event()
    theirs = options.get("on_progress")

    def on_progress(report: dict[str, Any]) -> None:
        if stopped.is_set():
            raise _Stopped
        if theirs is not None:
            theirs(report)

    given: Any = {**options, "on_progress": on_progress}
    job: Callable[[], Optimized[S]] = functools.partial(optimize, program, trainset, **given)
    work = asyncio.create_task(asyncio.to_thread(job))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stopped.set()
        work.add_done_callback(lambda task: task.cancelled() or task.exception())
        raise


class _Stopped(BaseException):
    """The awaiting task was cancelled: leave the stream, which cancels the job."""


def _student(
    program: Asked[S], lm: LMLike | None, adapter: Adapter | None, supervisor: Supervisor | None
) -> Program[S]:
    student: Program[S] = asked_program(program) or predictor("predict", program)
    given: Any = {"lm": lm, "adapter": adapter, "supervisor": supervisor}
    return student.using(**{name: value for name, value in given.items() if value is not None})


def _listed(rows: Any, name: str) -> list[Any]:
    """Return the rows as a list, which is gone through more than once.

    Raises:
        InvalidInput: they are no list of examples.
    """
    if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable):
        raise InvalidInput(f"{name} is a list of examples, not a {type(rows).__name__}.", field=name)
    return list(rows)


def _examples(student: Program, trainset: list[Any], valset: list[Any] | None, names: Sequence[str]) -> dict[str, Any]:
    examples, train = crossed_examples(trainset, student.signature)
    if not examples:
        raise InvalidInput("optimize needs a trainset with at least one example.", field="trainset")
    held_out, val = crossed_examples(valset or (), student.signature)
    is_carried = any(train) or any(val)
    return {
        "trainset": examples,
        "valset": None if valset is None else held_out,
        "carried": student.sent.carried({"train": train, "val": val}) if is_carried else None,
        "inputs": list(names),
        "plain": plain_labels([*trainset, *(valset or ())], names),
    }


def _named_inputs(student: Program, rows: list[Any], inputs: Sequence[str] | None) -> list[str]:
    """Return the fields that go in: those that are named, else those that DSPy's examples declare, else the known."""
    if (named := input_names(inputs)) is not None:
        return named
    declared = dict.fromkeys(name for row in rows for name in declared_inputs(row) or ())
    return list(declared) or [name for name in known_inputs(student) if any(name in row for row in rows)]


def _metric_job(student: Program, trainset: list[Any], valset: list[Any] | None, names: Sequence[str]) -> MetricJob:
    """Return what a metric of this process gets: the very examples that were given, and values of their types."""
    rows = {"train": trainset, "val": valset or []}
    examples = {title: [as_example(row, names) for row in given] for title, given in rows.items()}
    return MetricJob(examples, None if is_open(student) else student.answered)


def _models(student: Program, prompt_lm: LMLike | None, services: Services) -> dict[str, Any]:
    lm = student.lm_used
    return {
        "lm": services.lm_record(lm),
        "prompt_lm": None if prompt_lm is None else services.lm_record(defaults.as_lm(prompt_lm, student.supervisor)),
        "adapter": student.wire_adapter(lm),
    }


def _optimized(student: Program[S], optimizer: str, found: Mapping[str, Any], worker: str) -> Optimized[S]:
    adapter = student.adapter_used or (None if student.is_own else default_adapter(student.lm_used))
    best = student.with_state(checked_state(found["state"]), adapter=adapter)
    best = replace(best, prefix_sha256=rendered_prefix_hash(best))
    return Optimized(
        best,
        found.get("score"),
        found.get("baseline_score"),
        found.get("trials", []),
        optimizer,
        found.get("versions", {}),
        found.get("errors", {}),
        worker,
    )
