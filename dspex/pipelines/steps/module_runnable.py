"""Run a program as a pipeline's step in a worker: a module of DSPy's, or a strategy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...programs.calling.program import Program
from ...programs.options.routing import GENERAL_POOL
from .runnable import RunnableOutcome, Scope, optional_inputs_of, outcome_of

if TYPE_CHECKING:
    from ...pools.supervising import Supervising


@dataclass(frozen=True)
class ModuleRunnable:
    """A module of DSPy's, one shot per call (P6): losing its worker loses nothing."""

    program: Program
    pool: str = GENERAL_POOL
    is_stateful: bool = False

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.program.inputs

    @property
    def optional_inputs(self) -> frozenset[str]:
        return optional_inputs_of(self.program.signature)

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.program.outputs

    @property
    def own_supervisor(self) -> Supervising | None:
        """The program's own, whose workers run it whatever the run's are."""
        return self.program.supervisor

    @property
    def may_repeat(self) -> bool:
        return self.program.may_repeat

    def run(self, inputs: Mapping[str, Any], scope: Scope) -> RunnableOutcome:
        prediction, call = self._within(scope).run_in_worker(
            inputs,
            session=scope.key,
            timeout=scope.timeout,
            retry=scope.idempotent,
            cancel=scope.cancel.on_set,
        )
        return outcome_of(prediction, self.outputs, call)

    async def arun(self, inputs: Mapping[str, Any], scope: Scope) -> RunnableOutcome:
        prediction, call = await self._within(scope).arun_in_worker(
            inputs, session=scope.key, timeout=scope.timeout, retry=scope.idempotent
        )
        return outcome_of(prediction, self.outputs, call)

    def _within(self, scope: Scope) -> Program:
        return replace(self.program, supervisor=scope.supervisor, lm=self.program.lm or scope.lm)
