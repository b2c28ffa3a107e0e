"""Optimising programs in the capped pool, and what comes of it: a program that is served like any other.

best = dspex.optimize("question -> answer", trainset, metric=my_metric, on_progress=print)
best.score, best.baseline_score
best(question="...")
best.save("qa.json"); dspex.load("qa.json")
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .. import defaults
from ..errors import InvalidInput, SettingsError
from ..services.services import Services, checked_convention, services_of
from ..signatures.signature import Signature
from . import worker_answers
from .factories import predictor
from .native_route import default_adapter
from .program import Program
from .routing import GENERAL_POOL, OPTIMIZER_POOL
from .saved_file import checked_state
from .saving import Optimized, rendered_prefix_hash

Progress = Callable[[dict[str, Any]], object]


def optimize(
    program: Any,
    trainset: Sequence[Mapping[str, Any]],
    *,
    optimizer: str = "miprov2",
    metric: Any = None,
    valset: Sequence[Mapping[str, Any]] | None = None,
    on_progress: Progress | None = None,
    timeout: float | None = None,
    lm: Any = None,
    prompt_lm: Any = None,
    adapter: str | None = None,
    inputs: Sequence[str] | None = None,
    supervisor: Any = None,
    session: str | None = None,
    **options: Any,
) -> Optimized:
    """Optimize a program (or a signature) in the `mipro` pool; blocks, and calls `on_progress` with each report.

    `trainset` and `valset` are lists of {field: value}. `metric` is a built-in's name ("exact_match", "f1", ...), an
    import path "module:function" from the pool's `imports`, or a function of this process. A function is called as DSPy
    calls it: (example, prediction), with `trace` while demonstrations are collected, and with `pred_name` and
    `pred_trace` in GEPA if it has parameters for them; other parameters keep their defaults. `timeout` None is no
    limit. Other options are the optimizer's own (`num_candidates`, `num_trials`, `auto`, `seed`, ...).

    Raises:
        SettingsError: the metric cannot be called so; nothing was spent.
        MissingDependency: the optimizer needs a package that the workers lack; nothing was spent.
        OptimizationFailed: it ended with nothing but errors of the metric or the model.
        WorkerMemoryExceeded, WorkerDied, CallTimeout: as any call.
    """
    student = program.program if isinstance(program, Optimized) else program
    student = student if isinstance(student, Program) else predictor("predict", student)
    student = student.using(**_given(lm=lm, adapter=adapter, supervisor=supervisor))
    services = services_of(student.home())
    with lent_metric(metric, services) as described, student.lent(services):
        job = _Job.of(student, services, trainset, valset, optimizer, described, inputs, prompt_lm, options)
        return job.run(on_progress, math.inf if timeout is None else timeout, session)


async def aoptimize(program: Any, trainset: Sequence[Mapping[str, Any]], **options: Any) -> Optimized:
    """`optimize`, awaited; cancelling the task cancels the job."""
    import asyncio
    import threading

    stopped = threading.Event()
    theirs = options.pop("on_progress", None)

    def on_progress(report: dict[str, Any]) -> None:
        if stopped.is_set():
            raise _Stopped
        if theirs is not None:
            theirs(report)

    work = asyncio.create_task(asyncio.to_thread(optimize, program, trainset, on_progress=on_progress, **options))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stopped.set()
        work.add_done_callback(lambda task: task.cancelled() or task.exception())
        raise


class _Stopped(BaseException):
    """The awaiting task was cancelled: leave the stream, which cancels the job."""


def evaluate(
    program: Any,
    devset: Sequence[Mapping[str, Any]],
    *,
    metric: Any,
    num_threads: int | None = None,
    on_progress: Progress | None = None,
    timeout: float | None = None,
    inputs: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Score a program on examples, in a worker of the general pool: {"score": percent, "results": [...]}."""
    subject = program.program if isinstance(program, Optimized) else program
    supervisor = subject.home()
    services = services_of(supervisor)
    lm = subject.lm_used
    with lent_metric(metric, services) as described, subject.lent(services):
        arguments = {
            "spec": subject.spec(),
            "devset": [_example(row, subject.signature) for row in devset],
            "metric": described,
            "lm": services.lm_record(lm),
            "adapter": subject.wire_adapter(lm),
            "num_threads": num_threads,
            "inputs": list(inputs or subject.inputs),
        }
        stream = supervisor.stream(GENERAL_POOL, "evaluate", arguments, timeout=timeout)
        return worker_answers.evaluated(*_consume(stream, on_progress))


@contextlib.contextmanager
def lent_metric(metric: Any, services: Services) -> Iterator[dict[str, Any]]:
    """Give what names a metric to a worker; one of this process is lent for the time of the block.

    Raises:
        SettingsError: it is none.
    """
    if not callable(metric):
        yield _described(metric)
        return
    with services.metrics.lent(metric) as id:
        yield {"parent": id, "sees": checked_convention(metric).sees()}


def _described(metric: Any) -> dict[str, Any]:
    if isinstance(metric, str):
        return {"import" if ":" in metric else "name": metric}
    if isinstance(metric, Mapping):
        return dict(metric)
    raise SettingsError(
        "A metric is needed: a function (example, prediction, trace=None) -> score, a built-in's name such as "
        "'exact_match', or an import path 'module:function'.",
        key="metric",
    )


@dataclass(frozen=True)
class _Job:
    """One optimisation, ready to be sent."""

    student: Program
    arguments: dict[str, Any]
    optimizer: str

    @classmethod
    def of(
        cls,
        student: Program,
        services: Services,
        trainset: Sequence[Mapping[str, Any]],
        valset: Sequence[Mapping[str, Any]] | None,
        optimizer: str,
        metric: Mapping[str, Any],
        inputs: Sequence[str] | None,
        prompt_lm: Any,
        options: Mapping[str, Any],
    ) -> _Job:
        if not trainset:
            raise InvalidInput("optimize needs a trainset with at least one example.", field="trainset")
        lm = student.lm_used
        examples = [_example(row, student.signature) for row in trainset]
        arguments = {
            "spec": student.spec(),
            "trainset": examples,
            "valset": None if valset is None else [_example(row, student.signature) for row in valset],
            "inputs": list(inputs or student.inputs),
            "optimizer": optimizer,
            "metric": dict(metric),
            "options": dict(options),
            "lm": services.lm_record(lm),
            "prompt_lm": None if prompt_lm is None else services.lm_record(defaults.as_lm(prompt_lm)),
            "adapter": student.wire_adapter(lm),
        }
        return cls(student, arguments, optimizer)

    def run(self, on_progress: Progress | None, timeout: float, session: str | None) -> Optimized:
        supervisor = self.student.home()
        pool = supervisor.pool(OPTIMIZER_POOL)
        stream = pool.stream("optimize", self.arguments, timeout=timeout, session=session)
        value, worker = _consume(stream, on_progress)
        found = worker_answers.optimized(value, worker)
        adapter = self.student.adapter or default_adapter(self.student.lm_used)
        best = self.student.with_state(checked_state(found["state"]), adapter=adapter)
        best = replace(best, prefix_sha256=rendered_prefix_hash(best))
        return Optimized(
            best,
            found.get("score"),
            found.get("baseline_score"),
            found.get("trials", []),
            self.optimizer,
            found.get("versions", {}),
            found.get("errors", {}),
            worker,
        )


def _consume(stream: Any, on_progress: Progress | None) -> tuple[Any, str]:
    """Its value, and the worker that gave it."""
    with stream:
        for report in stream:
            if on_progress is not None:
                on_progress(report)
        return stream.value, stream.worker


def _example(row: Mapping[str, Any], sig: Signature) -> dict[str, Any]:
    """One example as plain data; its inputs must fit the signature."""
    from ..adapters.validation import to_wire

    if not hasattr(row, "items"):  # a dspy.Example is no Mapping, and has all of one
        raise InvalidInput(f"An example is a mapping of field names to values, not a {type(row).__name__}.")
    missing = [name for name, f in sig.input_fields.items() if name not in row and not f.has_default]
    if missing:
        raise InvalidInput(f"An example lacks the input {missing[0]!r}; it has {', '.join(row)}.", field=missing[0])
    return {name: to_wire(value, f"example[{name!r}]") for name, value in row.items()}


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
