"""`python(...)`: steps that a worker pool runs. What each does is a `Runnable` (see `runnables`)."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from ...errors import InvalidReturn, SettingsError
from ..core.dataflow import Flow, Reads, Writes
from ..core.parameters import missing
from ..core.snapshots import Snapshot
from ..core.step import Made, Step, StepJob, checked_policy, names_of
from .native_step import fallback_step
from .runnables import ModuleStep, RetrieverStep, Runnable, RunnableOutcome, Scope, runnable


def python(
    what: Any,
    /,
    *,
    signature: Any = None,
    name: str | None = None,
    into: str | None = None,
    when: Any = None,
    timeout: float | None = None,
    retry: int | None = None,
    fallback: Any = None,
    keep: Sequence[str] | str = (),
    stateful: bool = False,
    **options: Any,
) -> Step:
    """Give a step that runs in a worker.

    `what` is one of:

    - a module's name ("dspy.ChainOfThought", "dspy.ReAct", "package.module:Class") with `signature=`: it reads the
      signature's inputs and writes its outputs; what a module adds (`reasoning`, `trajectory`) and its `usage` are in
      the step's record, or written too where `keep` names them.
    - a program: `dspex.predictor(...)`, `dspex.optimize(...)`, `dspex.load(...)`.
    - a retriever's name ("dspy.ColBERTv2"): reads `query` (`query="other_name"`), gives `passages`, or `into=`.
    - an optimizer's name ("dspy.MIPROv2") with `signature=`, `trainset=`, `metric=`, `task=`, `max_examples=` and its
      own options: optimizes once, keeps the winner, and runs that.
    - any object with the verbs of `dspex.runnables.Runnable`.

    `timeout` is in seconds for all attempts together. `retry=n` allows n further attempts after any error that may
    pass; without it, only a step that is made of LM requests alone (`dspy.Predict`, `dspy.ChainOfThought`), or whose
    program says `idempotent=True`, is tried once more if its worker died. `stateful=True` says that the worker keeps
    something for the run's session.

    Raises:
        SettingsError, UnknownName, SignatureError: at once, for what could never run.
    """
    made = _runnable(what, signature, options)
    if stateful and not made.is_stateful:
        made = _stateful(made)
    policy = checked_policy(when=when, timeout=timeout, retry=retry, fallback=fallback_step(fallback, into=into))
    label = what if isinstance(what, str) else _label(made)
    return RunnableStep(name=name, policy=policy, into=into, keep=names_of(keep, "keep"), runnable=made, label=label)


@dataclass(frozen=True, kw_only=True)
class RunnableStep(Step):
    """A runnable at work."""

    kind: ClassVar[str] = "python"

    runnable: Runnable
    label: str

    @property
    def default_name(self) -> str:
        return self.label

    @property
    def default_retry(self) -> int:
        # A runnable of the user's that does not say so is not run twice.
        return 1 if getattr(self.runnable, "may_repeat", False) is True and not self.is_stateful else 0

    @property
    def is_stateful(self) -> bool:
        return self.runnable.is_stateful

    @cached_property
    def own_flow(self) -> Flow:
        optional = frozenset(self.runnable.optional_inputs)
        reads = Reads(frozenset(self.runnable.inputs) - optional, optional)
        return Flow(reads, Writes.of([self.into] if self.into else self.runnable.outputs, self.keep))

    def check(self, *, is_collected: bool) -> None:
        if not self.runnable.outputs and self.into is None and not is_collected:
            raise SettingsError(
                f"The step {self.name or self.label!r} gives a value without a name: give into='...'.", key="into"
            )

    def plan(self) -> tuple[str, str]:
        return f"python:{self.runnable.pool}", "dspex.python asked for a worker"

    async def perform(self, job: StepJob) -> Made:
        inputs = inputs_of(self.runnable.inputs, self.runnable.optional_inputs, job)
        scope = self._scope(job)
        outcome: RunnableOutcome = await job.driver.do(
            lambda: self.runnable.run(inputs, scope), lambda: self.runnable.arun(inputs, scope), heeds_cancel=True
        )
        return self._made(outcome, job)

    def _scope(self, job: StepJob) -> Scope:
        run = job.run
        supervisor = run.supervisor()
        run.touch(self.runnable.pool)
        return Scope(
            supervisor,
            run.lm,
            run.session,
            remaining(job, run.timeout, self.policy.timeout),
            # The attempts are counted here, and each is recorded. A second try of the pool's own would be one more than
            # `retry` allows, and nobody would see it.
            idempotent=False,
            on_progress=lambda report: run.progressed(job.node, report),
            cancel=job.driver.cancel,
        )

    def _made(self, outcome: RunnableOutcome, job: StepJob) -> Made:
        outputs = dict(outcome.outputs)
        if lacking := [name for name in self.runnable.outputs if name not in outputs]:
            raise InvalidReturn(
                f"The step {job.node.name!r} is to give {lacking[0]!r}; it gave {', '.join(outputs) or 'nothing'}."
            )
        is_one = not self.runnable.outputs or isinstance(self.runnable, RetrieverStep)
        if outcome.route.startswith("python:"):
            job.run.touch(
                outcome.route.removeprefix("python:").partition("/")[0]
            )  # an optimizer's winner runs elsewhere
        return Made(
            next(iter(outputs.values()), None) if is_one else outputs,
            outputs if self.runnable.outputs else None,
            route=outcome.route,
            worker=outcome.worker,
            generation=outcome.generation,
            usage=outcome.usage,
            cached=outcome.cached,
            optimized=outcome.optimized,
            extra=outcome.extra,
        )


def inputs_of(names: Sequence[str], optional: frozenset[str], job: StepJob) -> dict[str, Any]:
    """Give what a signature reads.

    Raises:
        InvalidInput: the state lacks something.
    """
    values: Mapping[str, Any] = Snapshot(job.state)
    error = job.state.get("error")
    if "error" in names and isinstance(error, BaseException):
        values = {**values, "error": f"{type(error).__name__}: {error}"}  # a fallback's: only its text can be sent
    for name in names:
        if name not in values and name not in optional:
            raise missing(name, job.node.name, job.state)
    return {name: values[name] for name in names if name in values}


def remaining(job: StepJob, *given: float | None) -> float | None:
    """Seconds until the deadline; None, for the pool's own default, where nobody gave a timeout."""
    if job.deadline < math.inf:
        return max(0.0, job.deadline - time.monotonic())
    return math.inf if math.inf in given else None


def _runnable(what: Any, sig: Any, options: dict[str, Any]) -> Runnable:
    from ...programs.program import Program
    from ...programs.saving import Optimized

    if isinstance(what, str):
        return runnable(what, signature=sig, **options)
    if sig is not None or options:
        given = "signature" if sig is not None else next(iter(options))
        raise SettingsError(f"{given}= goes with a name; this {type(what).__name__} has its own already.", key=given)
    if isinstance(what, Optimized | Program):
        return ModuleStep(what.program if isinstance(what, Optimized) else what)
    if callable(getattr(what, "run", None)) and callable(getattr(what, "arun", None)) and hasattr(what, "inputs"):
        made: Runnable = what
        return made
    raise SettingsError(
        f"dspex.python takes a name such as 'dspy.ChainOfThought', or a program, not a {type(what).__name__}."
    )


def _stateful(made: Any) -> Runnable:
    if dataclasses.is_dataclass(made) and not isinstance(made, type) and hasattr(made, "is_stateful"):
        changed: Runnable = dataclasses.replace(made, is_stateful=True)  # type: ignore[assignment]
        return changed
    raise SettingsError(f"A {type(made).__name__} says itself whether it is stateful.", key="stateful")


def _label(made: Any) -> str:
    program = getattr(made, "program", None)
    return program.module if program is not None else type(made).__name__
