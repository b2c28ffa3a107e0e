"""What a pipeline's DSPy step runs: a module, a retriever or an optimiser, by DSPy's own name.

`runnable("dspy.ChainOfThought", signature=...)` checks the name and the options at once; `run` and `arun` carry it out
in a worker, within a `Scope` that the pipeline's run gives.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import importlib.util
import json
import math
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from . import defaults
from .errors import CallCancelled, SettingsError, StepTimeout, UnknownName
from .inprocess.annotations import allows_none
from .inprocess.crossing import to_wire
from .inprocess.signatures import Signature, signature
from .optimizing import Optimized, optimize
from .pools.sessions import session_key
from .programs import KINDS, Program, predictor
from .router import GENERAL_POOL, OPTIMIZER_POOL
from .services import services_of

if TYPE_CHECKING:
    from .inprocess.lm.record import LM
    from .pools.calls import Call
    from .pools.supervisor import Supervisor

RETRIEVERS = ("dspy.ColBERTv2",)
OPTIMIZERS = {
    "dspy.MIPROv2": "miprov2",
    "dspy.GEPA": "gepa",
    "dspy.COPRO": "copro",
    "dspy.SIMBA": "simba",
    "dspy.BootstrapFewShot": "bootstrap",
    "dspy.BootstrapFewShotWithRandomSearch": "random_search",
    "dspy.LabeledFewShot": "labeled",
    "dspy.InferRules": "infer_rules",
}


class CancelFlag:
    """Says that a run's step is not wanted any more, and calls what can stop it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self.is_set = False

    def set(self) -> None:
        with self._lock:
            self.is_set = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def on_set(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` when it is set, or now if it is; gives what takes that back."""
        with self._lock:
            if not self.is_set:
                self._callbacks.append(callback)
                return lambda: self._forget(callback)
        callback()
        return _nothing

    def _forget(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)


@dataclass(frozen=True)
class Scope:
    """What a run gives to its steps. `session` is the caller's own id; `timeout` is in seconds, inf for none."""

    supervisor: Supervisor
    lm: LM | None = None
    session: str | None = None
    timeout: float | None = None
    idempotent: bool = False
    on_progress: Callable[[dict[str, Any]], object] | None = None
    cancel: CancelFlag = field(default_factory=CancelFlag)

    @property
    def key(self) -> str | None:
        return None if self.session is None else session_key(self.session)


@dataclass(frozen=True)
class Outcome:
    """What a step gave: its declared outputs, what its module added (`extra`), and how it ran."""

    outputs: dict[str, Any]
    extra: dict[str, Any] = field(default_factory=dict)
    route: str = ""
    worker: str = ""
    generation: int | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    cached: bool = False


class Runnable(Protocol):
    """A DSPy step. `outputs` are the fields of its signature as the user wrote it."""

    @property
    def inputs(self) -> tuple[str, ...]: ...
    @property
    def optional_inputs(self) -> frozenset[str]: ...
    @property
    def outputs(self) -> tuple[str, ...]: ...
    @property
    def has_tools(self) -> bool: ...
    @property
    def pool(self) -> str: ...
    @property
    def is_stateful(self) -> bool: ...
    def run(self, inputs: Mapping[str, Any], scope: Scope) -> Outcome: ...
    async def arun(self, inputs: Mapping[str, Any], scope: Scope) -> Outcome: ...


def runnable(name: str, *, signature: Any = None, **options: Any) -> Runnable:
    """Give what runs DSPy's `name`.

    Raises:
        UnknownName: no module, retriever or optimiser of that name can be called.
        SettingsError, SignatureError: its options or signature cannot be right.
    """
    if name in RETRIEVERS:
        return RetrieverStep(name, **options)
    if signature is None:
        _require_known(name)
        raise SettingsError(f"The step {name} needs a signature, such as 'question -> answer'.", key="signature")
    if name in OPTIMIZERS:
        return OptimizingStep(name, signature, **options)
    _require_known(name)
    return ModuleStep(predictor(name, signature, **options))


@dataclass(frozen=True)
class ModuleStep:
    """A module of DSPy's, one shot per call (P6): losing its worker loses nothing."""

    program: Program
    pool: str = GENERAL_POOL
    is_stateful: bool = False

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.program.inputs

    @property
    def optional_inputs(self) -> frozenset[str]:
        return _optional(self.program.signature)

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.program.outputs

    @property
    def has_tools(self) -> bool:
        return bool(self.program.tools)

    def run(self, inputs: Mapping[str, Any], scope: Scope) -> Outcome:
        program, supervisor = self._within(scope), scope.supervisor
        arguments = program._arguments(inputs, supervisor)
        call = _invoke(supervisor, GENERAL_POOL, "run", arguments, scope)
        return self._outcome(program, call)

    async def arun(self, inputs: Mapping[str, Any], scope: Scope) -> Outcome:
        program, supervisor = self._within(scope), scope.supervisor
        arguments = program._arguments(inputs, supervisor)
        call = await supervisor.pool(GENERAL_POOL).ainvoke("run", arguments, **_options(scope))
        return self._outcome(program, call)

    def _within(self, scope: Scope) -> Program:
        return replace(self.program, supervisor=scope.supervisor, lm=self.program.lm or scope.lm)

    def _outcome(self, program: Program, call: Call) -> Outcome:
        prediction = program._prediction(call.result(), call.worker_name)
        return _outcome(prediction, self.outputs, call)


@dataclass(frozen=True, init=False)
class RetrieverStep:
    """A retriever: reads the query, gives `passages`. The query is the input field that `query` names."""

    name: str
    query: str
    k: int
    options: Mapping[str, Any]
    pool: str = GENERAL_POOL
    has_tools: bool = False
    is_stateful: bool = False
    outputs: tuple[str, ...] = ("passages",)
    optional_inputs: frozenset[str] = frozenset()

    def __init__(self, name: str, *, query: str = "query", k: int = 3, **options: Any) -> None:
        if not options.get("url"):
            raise SettingsError(f"{name} needs the url of its server, such as url='http://127.0.0.1:8893'.", key="url")
        for field_, value in (("name", name), ("query", query), ("k", k), ("options", options)):
            object.__setattr__(self, field_, value)

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.query,)

    def run(self, inputs: Mapping[str, Any], scope: Scope) -> Outcome:
        calls = [
            _invoke(scope.supervisor, GENERAL_POOL, "retrieve", arguments, scope)
            for arguments in self._each(inputs[self.query])
        ]
        return self._outcome(calls)

    async def arun(self, inputs: Mapping[str, Any], scope: Scope) -> Outcome:
        pool = scope.supervisor.pool(GENERAL_POOL)
        jobs = [pool.ainvoke("retrieve", arguments, **_options(scope)) for arguments in self._each(inputs[self.query])]
        return self._outcome(await asyncio.gather(*jobs))

    def _each(self, query: Any) -> list[dict[str, Any]]:
        """One request for each query: the field may hold one or a list of them."""
        queries = [query] if isinstance(query, str) else list(query)
        options = {"url": self.options["url"], **self.options}
        return [{"retriever": self.name, "options": dict(options), "query": str(one), "k": self.k} for one in queries]

    def _outcome(self, calls: Sequence[Call]) -> Outcome:
        """The passages of all queries, the best score first, each once."""
        found: dict[str, dict[str, Any]] = {}
        for call in calls:
            for passage in call.result()["passages"]:
                known = found.get(passage["text"])
                if known is None or passage.get("score", 0) > known.get("score", 0):
                    found[passage["text"]] = passage
        passages = sorted(found.values(), key=lambda passage: -float(passage.get("score", 0)))
        last = calls[-1] if calls else None
        worker = last.worker_name if last is not None else ""
        generation = last.generation if last is not None else None
        return Outcome({"passages": passages}, {}, f"python:{worker}", worker, generation)


@dataclass(frozen=True)
class OptimizingStep:
    """Optimises the task's program once in the capped pool, then runs it like any predictor (P8)."""

    name: str
    student: Program
    trainset: tuple[Mapping[str, Any], ...]
    valset: tuple[Mapping[str, Any], ...] | None
    metric: Any
    task: str
    max_examples: int | None
    options: Mapping[str, Any]
    token: str = ""  # this step's own, where its metric has no other identity
    pool: str = OPTIMIZER_POOL
    is_stateful: bool = False

    def __init__(
        self,
        name: str,
        sig: Any,
        *,
        trainset: Sequence[Mapping[str, Any]] = (),
        valset: Sequence[Mapping[str, Any]] | None = None,
        metric: Any = None,
        task: str = "",
        module: str = "dspy.Predict",
        max_examples: int | None = None,
        implementation: str = "auto",
        **options: Any,
    ) -> None:
        if not trainset:
            raise SettingsError(f"The step {name} needs a trainset: a list of examples.", key="trainset")
        if metric is None:
            raise SettingsError(f"The step {name} needs a metric: a function, a name or an import path.", key="metric")
        known = sig if isinstance(sig, Signature) else signature(sig, task if " " in task else None)

        def put(key: str, value: Any) -> None:
            object.__setattr__(self, key, value)

        put("name", name)
        put("student", predictor(module, known, implementation=implementation))
        put("trainset", tuple(trainset[:max_examples] if max_examples else trainset))
        put("valset", None if valset is None else tuple(valset))
        put("metric", metric)
        put("task", task)
        put("max_examples", max_examples)
        put("options", options)
        put("token", secrets.token_hex(8))

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.student.inputs

    @property
    def optional_inputs(self) -> frozenset[str]:
        return _optional(self.student.signature)

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.student.outputs

    @property
    def has_tools(self) -> bool:
        return bool(self.student.tools)

    def run(self, inputs: Mapping[str, Any], scope: Scope) -> Outcome:
        best = self._flight(scope).wait(scope)
        program = replace(best.program, supervisor=scope.supervisor, lm=best.program.lm or scope.lm)
        if program.decision.implementation == "native":
            prediction = program.using(timeout=scope.timeout)(**inputs)
            return _with_scores(_outcome(prediction, self.outputs, None), best)
        arguments = program._arguments(inputs, scope.supervisor)
        call = _invoke(scope.supervisor, GENERAL_POOL, "run", arguments, scope)
        return _with_scores(_outcome(program._prediction(call.result(), call.worker_name), self.outputs, call), best)

    async def arun(self, inputs: Mapping[str, Any], scope: Scope) -> Outcome:
        best = await self._flight(scope).await_(scope)
        program = replace(best.program, supervisor=scope.supervisor, lm=best.program.lm or scope.lm)
        if program.decision.implementation == "native":
            prediction = await program.using(timeout=scope.timeout).acall(**inputs)
            return _with_scores(_outcome(prediction, self.outputs, None), best)
        arguments = program._arguments(inputs, scope.supervisor)
        call = await scope.supervisor.pool(GENERAL_POOL).ainvoke("run", arguments, **_options(scope))
        return _with_scores(_outcome(program._prediction(call.result(), call.worker_name), self.outputs, call), best)

    def _flight(self, scope: Scope) -> Flight:
        """The optimisation, under way or done; concurrent runs share it, and a waiter that leaves does not end it."""
        kept = services_of(scope.supervisor).kept
        lm = self.student.lm or scope.lm or defaults.configured_lm()
        key = self._key(lm)
        mine = Flight(self.name)
        flight = kept.setdefault(key, mine)
        if flight is mine:
            job = partial(self._optimize, scope.supervisor, lm, flight)
            flight.start(job, on_failure=lambda: kept.pop(key, None))  # the next run tries again
        assert isinstance(flight, Flight)
        return flight

    def _optimize(self, supervisor: Supervisor, lm: LM, flight: Flight) -> Optimized:
        return optimize(
            replace(self.student, lm=lm, supervisor=supervisor),
            self.trainset,
            optimizer=OPTIMIZERS[self.name],
            valset=self.valset,
            metric=self.metric,
            on_progress=flight.report,
            **self.options,
        )

    def _key(self, lm: LM) -> str:
        """What makes two optimisations the same (P8). A bare function is the same for this step alone."""
        facts = {
            "spec": self.student.spec() | {"tools": [tool.name for tool in self.student.tools]},
            "adapter": self.student.adapter,
            "trainset": to_wire(list(map(dict, self.trainset)), "trainset"),
            "valset": self.valset and to_wire(list(map(dict, self.valset)), "valset"),
            "metric": self.token if callable(self.metric) else _identity(self.metric),
            "options": {key: repr(value) for key, value in self.options.items()},
            "optimizer": self.name,
            "lm": lm.ref,
            "dspy": _dspy_version(),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=repr).encode()).hexdigest()


class Flight:
    """One optimisation and all who wait for it. Its thread reports to every one of them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._future: Future[Optimized] = Future()
        self._listeners: list[Callable[[dict[str, Any]], object]] = []

    def start(self, job: Callable[[], Optimized], *, on_failure: Callable[[], object]) -> None:
        def work() -> None:
            try:
                best = job()
            except BaseException as error:
                on_failure()
                self._future.set_exception(error)
            else:
                self._future.set_result(best)

        threading.Thread(target=work, name="dspex-optimisation", daemon=True).start()

    def report(self, facts: dict[str, Any]) -> None:
        for listener in tuple(self._listeners):
            listener(facts)

    def wait(self, scope: Scope) -> Optimized:
        """Give the winner; blocks.

        Raises:
            StepTimeout, CallCancelled: this waiter's time is up, or it is not wanted any more; the others wait on.
        """
        ready = threading.Event()
        take_back = scope.cancel.on_set(ready.set)
        self._future.add_done_callback(lambda _: ready.set())
        with self._listening(scope):
            is_ready = ready.wait(_patience(scope))
        take_back()
        if self._future.done():
            return self._future.result()
        if not is_ready:
            raise StepTimeout(self._name, timeout=scope.timeout or math.inf, whose="step")
        raise CallCancelled(f"The step {self._name} was cancelled; its optimisation goes on for others.")

    async def await_(self, scope: Scope) -> Optimized:
        """`wait`, awaited; cancelling the task leaves the optimisation to the others."""
        with self._listening(scope):
            try:
                async with asyncio.timeout(_patience(scope)):
                    return await asyncio.shield(asyncio.wrap_future(self._future))
            except TimeoutError:
                if self._future.done():
                    raise
                raise StepTimeout(self._name, timeout=scope.timeout or math.inf, whose="step") from None

    @contextmanager
    def _listening(self, scope: Scope) -> Iterator[None]:
        if scope.on_progress is None:
            yield
            return
        self._listeners.append(scope.on_progress)
        try:
            yield
        finally:
            self._listeners.remove(scope.on_progress)


# --- shared -------------------------------------------------------------------------------------------------------


def _invoke(supervisor: Supervisor, pool: str, command: str, arguments: dict[str, Any], scope: Scope) -> Call:
    """Call and wait, unless the run's step is cancelled meanwhile."""
    return supervisor.pool(pool).invoke(command, arguments, cancel=scope.cancel.on_set, **_options(scope))


def _options(scope: Scope) -> dict[str, Any]:
    return {"session": scope.key, "timeout": scope.timeout, "idempotent": scope.idempotent}


def _outcome(prediction: Any, outputs: Sequence[str], call: Call | None) -> Outcome:
    values = dict(prediction.items())
    declared = {name: values.pop(name) for name in outputs if name in values}
    worker = call.worker_name if call is not None else ""
    generation = call.generation if call is not None else None
    return Outcome(declared, values, prediction.route, worker, generation, prediction.usage, prediction.cached)


def _with_scores(outcome: Outcome, best: Optimized) -> Outcome:
    scores = {"score": best.score, "baseline_score": best.baseline_score, "trials": len(best.trials)}
    return replace(outcome, extra={**outcome.extra, **scores})


def _optional(sig: Signature) -> frozenset[str]:
    return frozenset(
        name for name, made in sig.input_fields.items() if made.has_default or allows_none(made.annotation)
    )


def _require_known(name: str) -> None:
    if name not in KINDS.values() and ":" not in name and name not in OPTIMIZERS:
        raise UnknownName("DSPy module", name, [*KINDS.values(), *RETRIEVERS, *OPTIMIZERS])


def _identity(metric: Any) -> str:
    """A metric by name, or by import path with its module's source: another text is another metric."""
    path = metric if isinstance(metric, str) else dict(metric).get("import", "")
    source = ""
    if ":" in path:
        found = importlib.util.find_spec(path.partition(":")[0])
        if found is not None and found.origin and found.origin.endswith(".py"):
            source = hashlib.sha256(Path(found.origin).read_bytes()).hexdigest()
    return f"{json.dumps(metric, sort_keys=True, default=repr)}:{source}"


def _dspy_version() -> str:
    try:
        return importlib.metadata.version("dspy")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _patience(scope: Scope) -> float | None:
    return None if scope.timeout in (None, math.inf) else scope.timeout


def _nothing() -> None:
    """There is nothing to take back."""
