"""Optimising programs in the capped pool, and what comes of it: a program that is served like any other.

best = dspex.optimize("question -> answer", trainset, metric=my_metric, on_progress=print)
best.score, best.baseline_score
best(question="...")
best.save("qa.json"); dspex.load("qa.json")
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import defaults
from .errors import InvalidInput, SettingsError
from .inprocess.prediction import Prediction
from .inprocess.predictor import default_adapter, wire_inputs
from .inprocess.signatures import Signature
from .programs import Program, predictor
from .router import GENERAL_POOL, OPTIMIZER_POOL
from .services import Services, services_of

FORMAT = 1  # of what `save` writes under metadata.dspex
Progress = Callable[[dict[str, Any]], object]


@dataclass(frozen=True)
class Optimized:
    """An optimised program, its scores in percent, and the trials that led to it. Call it like the program."""

    program: Program
    score: float | None
    baseline_score: float | None
    trials: list[dict[str, Any]] = field(default_factory=list)
    optimizer: str = ""
    versions: Mapping[str, Any] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)

    def __call__(self, **inputs: Any) -> Prediction:
        return self.program(**inputs)

    async def acall(self, **inputs: Any) -> Prediction:
        return await self.program.acall(**inputs)

    def using(self, **options: Any) -> Optimized:
        """Give the same with other call options; see `Program.using`."""
        return replace(self, program=self.program.using(**options))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON that DSPy's own `load` reads too; ours is under `metadata.dspex` (I7). No LM, no key."""
        text = json.dumps(self._document(), ensure_ascii=False, indent=2)
        target = Path(path)
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        draft.write_text(text, encoding="utf-8")
        draft.replace(target)

    def _document(self) -> dict[str, Any]:
        program = self.program
        versions = {key: str(value) for key, value in self.versions.items() if value is not None}
        own = {
            "format": FORMAT,
            "module": program.module,
            "signature": program.signature.to_wire(),
            "options": dict(program.options),
            "adapter": program.adapter,
            "prefix_sha256": program.prefix_sha256,
            "score": self.score,
            "baseline_score": self.baseline_score,
            "trials": self.trials,
            "optimizer": self.optimizer,
        }
        return {**(program.state or {}), "metadata": {"dependency_versions": versions, "dspex": own}}

    def __repr__(self) -> str:
        return f"<optimized {self.program!r}, score {self.score} (baseline {self.baseline_score})>"


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
    """Optimise a program (or a signature) in the `mipro` pool; blocks, and calls `on_progress` with each report.

    `trainset` and `valset` are lists of {field: value}. `metric` is a built-in's name ("exact_match", "f1", ...), an
    import path "module:function" from the pool's `imports`, or a function of this process. `timeout` None is no limit.
    Other options are the optimizer's own (`num_candidates`, `num_trials`, `auto`, `seed`, ...).

    Raises:
        MissingDependency: the optimizer needs a package that the workers lack; nothing was spent.
        OptimizationFailed: it ended with nothing but errors of the metric or the model.
        WorkerMemoryExceeded, WorkerDied, CallTimeout: as any call.
    """
    student = program.program if isinstance(program, Optimized) else program
    student = student if isinstance(student, Program) else predictor("predict", student)
    student = student.using(**_given(lm=lm, adapter=adapter, supervisor=supervisor))
    job = _Job.of(student, trainset, valset, optimizer, metric, inputs, prompt_lm, options)
    try:
        return job.run(on_progress, math.inf if timeout is None else timeout, session)
    finally:
        job.close()


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


def load(path: str | os.PathLike[str], *, program: Program | None = None, **options: Any) -> Optimized:
    """Read what `Optimized.save` or DSPy's `save` wrote; options are call options such as `lm`.

    A file of DSPy's own holds no field names: give the `program` that it was saved from.

    Raises:
        InvalidInput: it is no saved program, or not one of this program.
    """
    document = _read(path)
    metadata = document.pop("metadata", None) or {}
    own = metadata.get("dspex")
    if own is None and program is None:
        raise InvalidInput(
            f"{os.fspath(path)!r} was saved by DSPy itself, which stores no field names: give the program it belongs "
            f"to, as in dspex.load(path, program=dspex.predictor('predict', 'question -> answer'))."
        )
    own = own or {}
    base = program or predictor(own["module"], Signature.from_wire(own["signature"]), **own.get("options", {}))
    loaded = replace(base, state=document or None, prefix_sha256=own.get("prefix_sha256"), adapter=own.get("adapter"))
    if options:
        loaded = loaded.using(**options)
    if loaded.module in ("dspy.Predict", "dspy.ChainOfThought"):
        _ = loaded._native  # a state that does not fit is refused now, not at the first call
    return Optimized(
        loaded,
        own.get("score"),
        own.get("baseline_score"),
        own.get("trials", []),
        own.get("optimizer", ""),
        metadata.get("dependency_versions", {}),
    )


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
    supervisor = subject._supervisor()
    services = services_of(supervisor)
    described, drop = metric_argument(metric, services)
    lm = subject.lm or defaults.configured_lm()
    arguments = {
        "spec": subject.spec(),
        "devset": [_example(row, subject.signature) for row in devset],
        "metric": described,
        "lm": services.lm_record(lm),
        "adapter": subject.adapter or default_adapter(lm),
        "num_threads": num_threads,
        "inputs": list(inputs or subject.inputs),
    }
    services.tools.add(subject.tool_set, subject.tools)
    try:
        return _consume(supervisor.stream(GENERAL_POOL, "evaluate", arguments, timeout=timeout), on_progress)[0]
    finally:
        drop()


def metric_argument(metric: Any, services: Services) -> tuple[dict[str, Any], Callable[[], None]]:
    """Give what names a metric to a worker, and what to do when the job is over.

    Raises:
        SettingsError: it is none.
    """
    if callable(metric):
        id = services.metrics.add(metric)
        return {"parent": id}, lambda: services.metrics.drop(id)
    if isinstance(metric, str):
        return {"import" if ":" in metric else "name": metric}, _nothing
    if isinstance(metric, Mapping):
        return dict(metric), _nothing
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
    sample: dict[str, Any]
    drop_metric: Callable[[], None]

    @classmethod
    def of(
        cls,
        student: Program,
        trainset: Sequence[Mapping[str, Any]],
        valset: Sequence[Mapping[str, Any]] | None,
        optimizer: str,
        metric: Any,
        inputs: Sequence[str] | None,
        prompt_lm: Any,
        options: Mapping[str, Any],
    ) -> _Job:
        if not trainset:
            raise InvalidInput("optimize needs a trainset with at least one example.", field="trainset")
        services = services_of(student._supervisor())
        services.tools.add(student.tool_set, student.tools)
        lm = student.lm or defaults.configured_lm()
        examples = [_example(row, student.signature) for row in trainset]
        described, drop = metric_argument(metric, services)
        arguments = {
            "spec": student.spec(),
            "trainset": examples,
            "valset": None if valset is None else [_example(row, student.signature) for row in valset],
            "inputs": list(inputs or student.inputs),
            "optimizer": optimizer,
            "metric": described,
            "options": dict(options),
            "lm": services.lm_record(lm),
            "prompt_lm": None if prompt_lm is None else services.lm_record(defaults.as_lm(prompt_lm)),
            "adapter": student.adapter or default_adapter(lm),
        }
        sample = {name: examples[0][name] for name in student.inputs if name in examples[0]}
        return cls(student, arguments, optimizer, sample, drop)

    def run(self, on_progress: Progress | None, timeout: float, session: str | None) -> Optimized:
        supervisor = self.student._supervisor()
        pool = supervisor.pool(OPTIMIZER_POOL)
        stream = pool.stream("optimize", self.arguments, timeout=timeout, session=session)
        found, _ = _consume(stream, on_progress)
        best = replace(self.student, state=found["state"], adapter=self.arguments["adapter"])
        best = replace(best, prefix_sha256=self._prefix_hash(best))
        return Optimized(
            best,
            found.get("score"),
            found.get("baseline_score"),
            found.get("trials", []),
            self.optimizer,
            found.get("versions", {}),
            found.get("errors", {}),
        )

    def _prefix_hash(self, best: Program) -> str | None:
        """What DSPy renders before the inputs, so that the native side serves it only if it renders the same (I1)."""
        if best.module not in ("dspy.Predict", "dspy.ChainOfThought"):
            return None
        import hashlib

        supervisor = best._supervisor()
        arguments = {key: self.arguments[key] for key in ("adapter", "lm")}
        inputs = wire_inputs(best.signature, self.sample)
        rendered = supervisor.call(GENERAL_POOL, "render", {"spec": best.spec(), "inputs": inputs, **arguments})
        prefix = rendered["messages"][:-1]
        text = json.dumps(prefix, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def close(self) -> None:
        self.drop_metric()


def _consume(stream: Any, on_progress: Progress | None) -> tuple[dict[str, Any], str]:
    with stream:
        for report in stream:
            if on_progress is not None:
                on_progress(report)
        return stream.value, stream.worker


def _example(row: Mapping[str, Any], sig: Signature) -> dict[str, Any]:
    """One example as plain data; its inputs must fit the signature."""
    from .inprocess.crossing import to_wire

    missing = [name for name, f in sig.input_fields.items() if name not in row and not f.has_default]
    if missing:
        raise InvalidInput(f"An example lacks the input {missing[0]!r}; it has {', '.join(row)}.", field=missing[0])
    return {name: to_wire(value, f"example[{name!r}]") for name, value in row.items()}


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"The program {os.fspath(path)!r} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InvalidInput(f"The program {os.fspath(path)!r} is not JSON: {error}.") from error
    if not isinstance(document, dict):
        raise InvalidInput(f"{os.fspath(path)!r} holds no program.")
    return document


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _nothing() -> None:
    """A metric that the worker has itself needs no clearing up."""
