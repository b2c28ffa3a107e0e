"""What a pipeline's DSPy step runs: a module, a retriever or an optimiser, by DSPy's own name.

`runnable("dspy.ChainOfThought", signature=...)` checks the name and the options at once; `run` and `arun` carry it out
in a worker, within a `Scope` that the pipeline's run gives.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from . import defaults
from .errors import CallCancelled, SettingsError, UnknownName
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
    metric: Any
    task: str
    max_examples: int | None
    options: Mapping[str, Any]
    pool: str = OPTIMIZER_POOL
    is_stateful: bool = False

    def __init__(
        self,
        name: str,
        sig: Any,
        *,
        trainset: Sequence[Mapping[str, Any]] = (),
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
        put("metric", metric)
        put("task", task)
        put("max_examples", max_examples)
        put("options", options)

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
        best = self._wait(self._optimized(scope), scope)
        program = replace(best.program, supervisor=scope.supervisor, lm=best.program.lm or scope.lm)
        if program.decision.implementation == "native":
            prediction = program.using(timeout=scope.timeout)(**inputs)
            return _with_scores(_outcome(prediction, self.outputs, None), best)
        arguments = program._arguments(inputs, scope.supervisor)
        call = _invoke(scope.supervisor, GENERAL_POOL, "run", arguments, scope)
        return _with_scores(_outcome(program._prediction(call.result(), call.worker_name), self.outputs, call), best)

    async def arun(self, inputs: Mapping[str, Any], scope: Scope) -> Outcome:
        best = await asyncio.shield(asyncio.wrap_future(self._optimized(scope)))
        program = replace(best.program, supervisor=scope.supervisor, lm=best.program.lm or scope.lm)
        if program.decision.implementation == "native":
            prediction = await program.using(timeout=scope.timeout).acall(**inputs)
            return _with_scores(_outcome(prediction, self.outputs, None), best)
        arguments = program._arguments(inputs, scope.supervisor)
        call = await scope.supervisor.pool(GENERAL_POOL).ainvoke("run", arguments, **_options(scope))
        return _with_scores(_outcome(program._prediction(call.result(), call.worker_name), self.outputs, call), best)

    def _optimized(self, scope: Scope) -> Future[Optimized]:
        """The optimisation, under way or done; concurrent runs share it, and a waiter that leaves does not end it."""
        kept = services_of(scope.supervisor).kept
        lm = self.student.lm or scope.lm or defaults.configured_lm()
        key = f"{'' if _has_identity(self.metric) else id(self)}:{self._digest(lm)}"
        future: Future[Optimized] = Future()
        first = kept.setdefault(key, future)
        if first is future:
            threading.Thread(target=self._optimize, args=(future, kept, key, lm, scope), daemon=True).start()
        return first  # type: ignore[no-any-return]

    def _optimize(self, future: Future[Optimized], kept: dict[str, Any], key: str, lm: LM, scope: Scope) -> None:
        try:
            best = optimize(
                replace(self.student, lm=lm, supervisor=scope.supervisor),
                self.trainset,
                optimizer=OPTIMIZERS[self.name],
                metric=self.metric,
                on_progress=scope.on_progress,
                session=scope.key,
                **self.options,
            )
        except BaseException as error:
            kept.pop(key, None)  # the next run tries again
            future.set_exception(error)
        else:
            future.set_result(best)

    def _wait(self, future: Future[Optimized], scope: Scope) -> Optimized:
        stopped = threading.Event()
        take_back = scope.cancel.on_set(stopped.set)
        future.add_done_callback(lambda _: stopped.set())
        try:
            if not stopped.wait(None if scope.timeout in (None, math.inf) else scope.timeout):
                raise TimeoutError(
                    f"The optimisation of step {self.name} did not end in {scope.timeout:g} s; it goes on."
                )
        finally:
            take_back()
        if not future.done():
            raise CallCancelled(f"The step {self.name} was cancelled; its optimisation goes on for others.")
        return future.result()

    def _digest(self, lm: LM) -> str:
        """What makes two optimisations the same (P8)."""
        facts = {
            "spec": self.student.spec() | {"tools": [tool.name for tool in self.student.tools]},
            "trainset": to_wire(list(map(dict, self.trainset)), "trainset"),
            "metric": _identity(self.metric),
            "options": {key: repr(value) for key, value in self.options.items()},
            "optimizer": self.name,
            "lm": lm.ref,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=repr).encode()).hexdigest()


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


def _has_identity(metric: Any) -> bool:
    """Whether a metric is the same wherever it is named: a bare function is kept for its own step only (P8)."""
    return not callable(metric)


def _identity(metric: Any) -> str:
    if not callable(metric):
        return json.dumps(metric, sort_keys=True, default=repr)
    try:
        source = inspect.getsource(metric)
    except (OSError, TypeError):
        source = ""
    return f"{getattr(metric, '__qualname__', '')}:{hashlib.sha256(source.encode()).hexdigest()}"


def _nothing() -> None:
    """There is nothing to take back."""
