"""Run steps in a worker pool. The work of each is a `Runnable`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...errors import InvalidReturn, SettingsError
from ..core.dataflow import Flow, Reads, Writes
from ..core.step import Step, StepJob, StepOutput, inputs_of, remaining
from .retriever_runnable import RetrieverRunnable
from .runnable import Runnable, RunnableOutcome, Scope

if TYPE_CHECKING:
    from ...pools.supervising import Supervising


@dataclass(frozen=True, kw_only=True)
class RunnableStep(Step):
    """A step that runs a runnable."""

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

    def _own_flow(self) -> Flow:
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

    async def perform(self, job: StepJob) -> StepOutput:
        inputs = inputs_of(self.runnable.inputs, self.runnable.optional_inputs, job)
        scope = self._scope(job)
        outcome: RunnableOutcome = await job.driver.do(
            lambda: self.runnable.run(inputs, scope), lambda: self.runnable.arun(inputs, scope), heeds_cancel=True
        )
        return self._output(outcome, job)

    @property
    def _own_supervisor(self) -> Supervising | None:
        found: Supervising | None = getattr(self.runnable, "own_supervisor", None)
        return found

    def _scope(self, job: StepJob) -> Scope:
        run, own = job.run, self._own_supervisor
        if own is None:
            run.touch(self.runnable.pool)
        return Scope(
            own or run.supervisor(),
            run.lm,
            run.session if own is None else None,  # the run closes the sessions of its own supervisor
            remaining(job, run.timeout, self.policy.timeout),
            # The attempts are counted here, and each is recorded. A second try of the pool's own would be one more than
            # `retry` allows, and nobody would see it.
            idempotent=False,
            on_progress=lambda report: run.progressed(job.node.name, report),
            cancel=job.driver.cancel,
        )

    def _output(self, outcome: RunnableOutcome, job: StepJob) -> StepOutput:
        outputs = dict(outcome.outputs)
        if lacking := [name for name in self.runnable.outputs if name not in outputs]:
            raise InvalidReturn(
                f"The step {job.node.name!r} is to give {lacking[0]!r}; it gave {', '.join(outputs) or 'nothing'}."
            )
        is_one = not self.runnable.outputs or isinstance(self.runnable, RetrieverRunnable)
        if outcome.route.startswith("python:") and self._own_supervisor is None:
            job.run.touch(
                outcome.route.removeprefix("python:").partition("/")[0]
            )  # an optimizer's winner runs elsewhere
        return StepOutput(
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
