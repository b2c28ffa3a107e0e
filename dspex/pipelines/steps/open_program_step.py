"""Run a user's own module as a step: it reads what its `forward` takes, and writes what it returns.

Neither is known before a worker has been asked, so a pipeline is checked at such a step only when it runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ...errors import InvalidReturn
from ...programs.calling.program import Program
from ...types.prediction import Prediction
from ..core.dataflow import Flow, Reads, Writes
from ..core.snapshots import Snapshot
from ..core.step import Step, StepJob, StepOutput, inputs_of
from .run_defaults import within_run


@dataclass(frozen=True, kw_only=True)
class OpenProgramStep(Step):
    """A program without a signature, in a worker of its own supervisor or the run's."""

    kind: ClassVar[str] = "python"

    program: Program
    label: str

    @property
    def default_name(self) -> str:
        return self.label

    @property
    def default_retry(self) -> int:
        return 1 if self.program.may_repeat else 0

    def _own_flow(self) -> Flow:
        writes = Writes.of([self.into]) if self.into else Writes(is_open=True)
        return Flow(Reads(is_everything=True), writes)

    def plan(self) -> tuple[str, str]:
        return f"python:{self.program.decision.pool}", "it is a module of yours"

    async def perform(self, job: StepJob) -> StepOutput:
        # The attempts are counted here, and each is recorded.
        program = within_run(self.program, self, job, idempotent=False)
        described = await self._described(program, job)
        inputs = self._inputs(program, described, job)
        value = await job.driver.do(lambda: program(**inputs), lambda: program.acall(**inputs), heeds_cancel=False)
        return self._output(value, job)

    async def _described(self, program: Program, job: StepJob) -> Mapping[str, Any]:
        asked: Mapping[str, Any] | None = self.__dict__.get("_asked")
        if asked is None:
            known: Mapping[str, Any] = await job.driver.do(
                lambda: program.described, lambda: asyncio.to_thread(lambda: program.described), heeds_cancel=False
            )
            vars(self)["_asked"] = asked = known
        return asked

    def _inputs(self, program: Program, described: Mapping[str, Any], job: StepJob) -> dict[str, Any]:
        names = program.inputs_named(described)
        if not names and described["takes_any"]:
            return {name: value for name, value in Snapshot(job.state).items() if name != "error"}
        optional = frozenset(names) - frozenset(described["required"])
        return inputs_of(names, optional, job)

    def _output(self, value: Any, job: StepJob) -> StepOutput:
        is_named = isinstance(value, Prediction | dict) and all(isinstance(name, str) for name in value)
        if not is_named and self.into is None and value is not None and not job.node.is_collected:
            raise InvalidReturn(
                f"The step {job.node.name!r} returned a {type(value).__name__}, not a mapping: give into='...'."
            )
        outputs: dict[str, Any] | None = dict(value.items()) if is_named and value is not None else None
        route = value.route if isinstance(value, Prediction) else f"python:{self.program.decision.pool}"
        return StepOutput(
            value if outputs is None else outputs,
            {} if value is None else outputs,
            route=route,
            worker=route.removeprefix("python:") if "/" in route else "",
            usage=getattr(value, "usage", {}),
            cached=getattr(value, "cached", False),
        )
