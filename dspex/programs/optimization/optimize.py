"""Optimize programs in the capped pool; the result is served like any other program.

best = dspex.optimize("question -> answer", trainset, metric=my_metric, on_progress=print)
best.score, best.baseline_score
best(question="...")
best.save("qa.json"); dspex.load("qa.json")
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

from ... import defaults
from ...errors import InvalidInput
from ...services.metrics import MetricJob, checked_metric
from ...services.services import Services, services_of
from ..calling.program import Program
from ..examples.devset import as_example, declared_inputs, input_names
from ..examples.example_jobs import Progress, SplitExamples, followed, require_inputs
from ..factories.given_program import given_program, is_open, known_inputs
from ..factories.program_factories import predictor
from ..options import program_options
from ..saving.optimized import Optimized
from .optimization_job import OptimizationJob
from .optimizer_options import OptimizerName, OptimizerOptions, require_optimizer

if TYPE_CHECKING:
    from ...adapters.given_adapter import AdapterLike
    from ...defaults import LMLike
    from ...pools.supervisor import Supervisor
    from ..calling.program import S
    from ..factories.program_factories import Asked

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
    adapter: AdapterLike | None
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
    adapter: AdapterLike | None = None,
    inputs: Sequence[str] | None = None,
    supervisor: Supervisor | None = None,
    session: str | None = None,
    **options: Unpack[OptimizerOptions],
) -> Optimized[S]:
    """Optimize a program (or a signature) in the `mipro` pool; blocks, and calls `on_progress` with each report.

    `trainset` and `valset` are lists of {field: value}. `metric` is a built-in's name ("exact_match", "f1", ...), an
    import path "module:function", which runs in the worker, or a function of this process, plain or asynchronous. A
    function is called as DSPy calls it: (example, prediction), with `trace` while demonstrations are collected, and
    with `pred_name` and `pred_trace` in GEPA if it has parameters for them; other parameters keep their defaults.
    `timeout` None is no limit. Other options are the optimizer's own (`num_candidates`, `num_trials`, `auto`, `seed`,
    ...).

    Raises:
        UnknownName, SettingsError, InvalidInput: an optimizer, option, metric or example that cannot be; nothing was
            spent.
        MissingDependency: the optimizer needs a package that the workers lack; nothing was spent.
        OptimizationFailed: it ended with nothing but errors of the metric or the model.
        WorkerMemoryExceeded, WorkerDied, CallTimeout: as any call.
    """
    asked: Any = (metric, valset, timeout, lm, prompt_lm, adapter, inputs, supervisor, session)
    job: OptimizationJob[S] = _job(program, trainset, optimizer, options, *asked)
    with job.sent() as sent:
        value, found_by = followed(job.pool.stream("optimize", sent, **job.how), on_progress)
    return job.optimized(value, found_by)


async def aoptimize(program: Asked[S], trainset: Examples, **options: Unpack[OptimizeOptions]) -> Optimized[S]:
    """`optimize`, awaited on the running loop; cancelling the task cancels the job, at once."""
    given: dict[str, Any] = {**options}
    own = {name: given.pop(name) for name in OptimizerOptions.__optional_keys__ & given.keys()}
    known = OptimizeOptions.__optional_keys__ - OptimizerOptions.__optional_keys__
    own |= {name: given.pop(name) for name in given.keys() - known}  # which no optimizer has: refused by name
    on_progress = given.pop("on_progress", None)
    prepare: Callable[[], OptimizationJob[S]] = partial(_job, program, trainset, options=own, **given)
    job = await asyncio.to_thread(prepare)  # it may start workers
    with job.sent() as sent:
        async with job.pool.astream("optimize", sent, **job.how) as stream:
            async for report in stream:
                if on_progress is not None:
                    on_progress(report)
            value, found_by = stream.value, stream.worker
    return await asyncio.to_thread(job.optimized, value, found_by)  # it has a worker render the prompt once


def _job(
    program: Asked[S],
    trainset: Examples,
    optimizer: OptimizerName = "miprov2",
    options: Mapping[str, Any] | None = None,
    metric: Metric | None = None,
    valset: Examples | None = None,
    timeout: float | None = None,
    lm: LMLike | None = None,
    prompt_lm: LMLike | None = None,
    adapter: AdapterLike | None = None,
    inputs: Sequence[str] | None = None,
    supervisor: Supervisor | None = None,
    session: str | None = None,
) -> OptimizationJob[S]:
    """Return the job, checked as far as this process can.

    Raises:
        UnknownName, SettingsError, InvalidInput: it cannot be.
    """
    require_optimizer(optimizer, options or {})
    program_options.require_seconds(timeout)
    checked_metric(metric)
    student = _student(program, lm, adapter, supervisor)
    learned, held_out = _listed(trainset, "trainset"), None if valset is None else _listed(valset, "valset")
    names = _named_inputs(student, [*learned, *(held_out or ())], inputs)
    arguments = {
        **_examples(student, learned, held_out, names),
        **_models(student, prompt_lm, services_of(student.supervisor_used)),
        "config": dict(student.config_used),
        "rollout_id": student.rollout_id,
        "optimizer": optimizer,
        "options": dict(options or {}),
    }
    how: Any = {
        "timeout": math.inf if timeout is None else timeout,
        "session": session,
        "is_trusted": student.is_trusted,
    }
    return OptimizationJob(student, optimizer, metric, _metric_job(student, learned, held_out, names), arguments, how)


def _student(
    program: Asked[S], lm: LMLike | None, adapter: AdapterLike | None, supervisor: Supervisor | None
) -> Program[S]:
    student: Program[S] = given_program(program, supervisor) or predictor("predict", program)
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
    rows = [*trainset, *(valset or ())]
    require_inputs(rows, student.signature)
    if not trainset:
        raise InvalidInput("optimize needs a trainset with at least one example.", field="trainset")
    learned, held_out = SplitExamples.of(trainset), SplitExamples.of(valset or ())
    objects = {"train": learned.objects, "val": held_out.objects}
    carried = None if learned.are_plain and held_out.are_plain else student.sent.carried(objects)
    return {
        "trainset": learned.plain,
        "valset": None if valset is None else held_out.plain,
        "inputs": list(names),
        "plain": list(dict.fromkeys(name for row in rows for name in row.keys() if name not in names)),  # noqa: SIM118
        **({} if carried is None else {"carried": carried}),
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
    return MetricJob(examples, None if is_open(student) else student.answered, student.typed, student.packages)


def _models(student: Program, prompt_lm: LMLike | None, services: Services) -> dict[str, Any]:
    lm = student.lm_used
    return {
        "lm": services.lm_record(lm),
        "prompt_lm": None if prompt_lm is None else services.lm_record(defaults.as_lm(prompt_lm, student.supervisor)),
        "adapter": student.wire_adapter(lm),
    }
