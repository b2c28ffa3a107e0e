"""Run an optimizer as a step: it optimizes its task's program once, keeps the best, and runs that (P8)."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import defaults
from ...adapters.plain_data import is_json, to_wire
from ...errors import SettingsError, UnknownName
from ...programs.calling.program import Program
from ...programs.factories.program_factories import predictor
from ...programs.modules.named_signatures import signature_for
from ...programs.optimization.job import OptimizationJob
from ...programs.optimization.optimize import OptimizeOptions, optimize
from ...programs.optimization.optimizer_options import OptimizerName
from ...programs.options.program_options import require_whole
from ...programs.options.routing import OPTIMIZER_POOL, Implementation
from ...programs.saving.optimized import Optimized
from ...services.metrics import checked_metric
from ...services.services import services_of
from ...signatures.signature import Signature
from ..core.results import Optimization
from .module_runnable import ModuleRunnable
from .runnable import RunnableOutcome, Scope, optional_inputs_of, outcome_of
from .shared_optimization import SharedOptimization

if TYPE_CHECKING:
    from ...lm.record import LM
    from ...pools.supervising import Supervising

OPTIMIZERS: Mapping[str, OptimizerName] = {
    "dspy.MIPROv2": "miprov2",
    "dspy.GEPA": "gepa",
    "dspy.COPRO": "copro",
    "dspy.SIMBA": "simba",
    "dspy.BootstrapFewShot": "bootstrap",
    "dspy.BootstrapFewShotWithRandomSearch": "random_search",
    "dspy.LabeledFewShot": "labeled",
    "dspy.InferRules": "infer_rules",
    "dspy.BootstrapFewShotWithOptuna": "optuna",
    "dspy.BetterTogether": "better_together",
}


@dataclass(frozen=True)
class OptimizerRunnable:
    """Optimizes the task's program once in the capped pool, then runs it like any predictor (P8)."""

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
        implementation: Implementation = "auto",
        **options: Any,
    ) -> None:
        for option in options.keys() - OptimizeOptions.__optional_keys__:
            raise UnknownName("option", option, OptimizeOptions.__optional_keys__, where=name)
        if not isinstance(trainset, Sequence) or not isinstance(valset, Sequence | None):
            raise SettingsError(f"The trainset and valset of {name} are lists of examples.", key="trainset")
        if max_examples is not None:
            require_whole("max_examples", max_examples, 0)
        if not trainset:
            raise SettingsError(f"The step {name} needs a trainset: a list of examples.", key="trainset")
        if metric is None:
            raise SettingsError(f"The step {name} needs a metric: a function, a name or an import path.", key="metric")
        checked_metric(metric)
        known = signature_for(sig)
        if not isinstance(sig, Signature) and " " in task:
            known = known.with_instructions(task)

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
        return optional_inputs_of(self.student.signature)

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.student.outputs

    @property
    def may_repeat(self) -> bool:
        return False  # the whole optimization would be paid again, and the user's metric called again

    def run(self, inputs: Mapping[str, Any], scope: Scope) -> RunnableOutcome:
        shared = self._shared(scope)
        is_reused = shared.is_over
        best = shared.wait(scope)
        program = replace(best.program, supervisor=scope.supervisor, lm=best.program.lm or scope.lm)
        if program.decision.implementation == "native":
            prediction = program.using(timeout=scope.timeout)(**inputs)
            outcome = outcome_of(prediction, self.outputs, None)
        else:
            outcome = ModuleRunnable(program).run(inputs, scope)
        return _described(outcome, best, shared.seconds, is_reused=is_reused)

    async def arun(self, inputs: Mapping[str, Any], scope: Scope) -> RunnableOutcome:
        shared = self._shared(scope)
        is_reused = shared.is_over
        best = await shared.await_(scope)
        program = replace(best.program, supervisor=scope.supervisor, lm=best.program.lm or scope.lm)
        if program.decision.implementation == "native":
            prediction = await program.using(timeout=scope.timeout).acall(**inputs)
            outcome = outcome_of(prediction, self.outputs, None)
        else:
            outcome = await ModuleRunnable(program).arun(inputs, scope)
        return _described(outcome, best, shared.seconds, is_reused=is_reused)

    def _shared(self, scope: Scope) -> SharedOptimization:
        """Return the optimization, running or done, for one more to wait for; runs share it, until the last leaves."""
        kept = services_of(scope.supervisor).kept
        lm = self.student.lm or scope.lm
        lm = defaults.configured_lm(scope.supervisor) if lm is None else defaults.as_lm(lm, scope.supervisor)
        key = self._key(lm)
        while True:
            mine = SharedOptimization(self.name, kept, key)
            shared = kept.setdefault(key, mine)
            assert isinstance(shared, SharedOptimization)
            if shared.enter():
                break
            shared.forget()  # its last waiter has just left it
        if shared is mine:
            mine.start(partial(self._optimize, scope.supervisor, lm, mine))
        return shared

    def _optimize(self, supervisor: Supervising, lm: LM, shared: SharedOptimization) -> OptimizationJob[Any]:
        return optimize(
            replace(self.student, lm=lm, supervisor=supervisor),
            self.trainset,
            optimizer=OPTIMIZERS[self.name],
            valset=self.valset,
            metric=self.metric,
            on_progress=shared.report,
            progress=False,
            wait=False,
            **self.options,
        )

    def _key(self, lm: LM) -> str:
        """Return the key of equal optimizations (P8). A bare function is equal for this step alone."""
        facts = {
            "spec": self.student.to_wire() | {"tools": [tool.name for tool in self.student.tools]},
            "adapter": self.student.adapter_used,
            "trainset": to_wire(list(map(dict, self.trainset)), "trainset"),
            "valset": self.valset and to_wire(list(map(dict, self.valset)), "valset"),
            "metric": self.token if callable(self.metric) else _identity(self.metric),
            "options": {key: repr(value) if is_json(value) else self.token for key, value in self.options.items()},
            "optimizer": self.name,
            "lm": lm.ref,
            "lms": {name: each.ref for name, each in replace(self.student, lm=lm).lms_used.items()},
            "dspy": _dspy_version(),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=repr).encode()).hexdigest()


def _described(outcome: RunnableOutcome, best: Optimized, seconds: float, *, is_reused: bool) -> RunnableOutcome:
    """Return the optimized program's outcome, with where and how it was made."""
    pool = best.worker.partition("/")[0] or OPTIMIZER_POOL
    made = Optimization(best.optimizer, pool, best.worker, seconds, best.score, best.baseline_score, reused=is_reused)
    scores = {"score": best.score, "baseline_score": best.baseline_score, "trials": len(best.trials)}
    return replace(outcome, extra={**outcome.extra, **scores}, optimized=made)


def _identity(metric: Any) -> str:
    """Return a metric's name, or its import path with its module's source: another text is another metric."""
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
