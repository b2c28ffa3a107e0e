"""Run signatures and programs as native steps: in this process, or where the router sends them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from ...errors import NotConfigured, UnknownName
from ...programs.calling.program import Program
from ...types.prediction import Prediction
from ..core.dataflow import Flow, Reads, Writes
from ..core.step import Policy, Step, StepJob, StepOutput, inputs_of
from .run_defaults import within_run

_OPTIONS = (
    *("spec", "instructions", "lm", "lms", "adapter", "config", "demos", "rollout_id", "allow_markers"),
    *("use_native_function_calling", "idempotent", "trace", "history", "callbacks"),
)


def signature_step(spec: Any, options: dict[str, Any], *, policy: Policy, **common: Any) -> Step:
    """Return the native predict step for a signature.

    Raises:
        SignatureError, UnknownName: it cannot be read, or an option does not exist.
    """
    from ...programs.factories.program_factories import predictor
    from ...programs.modules.named_signatures import signature_for

    made = signature_for(spec, options.get("supervisor"))
    if (instructions := options.pop("instructions", None)) is not None:
        made = made.with_instructions(instructions)
    chosen: dict[str, Any] = {"implementation": "native", **options}
    program = predictor("predict", made, **chosen)
    if program.options:
        raise UnknownName("option", next(iter(program.options)), _OPTIONS, where="a native signature step")
    return ProgramStep(program=program, label="predict", policy=policy, **common)


@dataclass(frozen=True, kw_only=True)
class ProgramStep(Step):
    """A program, on its own route. Its text is streamed when somebody watches the run."""

    kind: ClassVar[str] = "native"

    program: Program
    label: str

    @property
    def default_name(self) -> str:
        return self.label

    def _own_flow(self) -> Flow:
        optional = self._optional
        reads = Reads(frozenset(self.program.inputs) - optional, optional)
        return Flow(reads, Writes.of([self.into] if self.into else self.program.outputs, self.keep))

    def plan(self) -> tuple[str, str]:
        try:
            decision = self.program.decision
        except NotConfigured as error:
            return "undecided", str(error)
        return ("native" if decision.pool is None else f"python:{decision.pool}"), decision.reason.value

    async def perform(self, job: StepJob) -> StepOutput:
        inputs = inputs_of(self.program.inputs, self._optional, job)
        program = within_run(self.program, self, job)
        if job.run.is_watched and len(self._all_text(program)) > 0:
            prediction = await job.driver.do(
                lambda: _streamed(program, inputs, job), lambda: _astreamed(program, inputs, job), heeds_cancel=False
            )
        else:
            prediction = await job.driver.do(
                lambda: program(**inputs), lambda: program.acall(**inputs), heeds_cancel=False
            )
        return self._output(prediction)

    @cached_property
    def _optional(self) -> frozenset[str]:
        return frozenset(name for name, f in self.program.signature.input_fields.items() if f.has_default)

    def _all_text(self, program: Program) -> tuple[str, ...]:
        """Return the fields that can be streamed: none, where several generations are asked for."""
        several = program.config.get("n") or (program.lm_used.n if program.lm is not None else 1) or 1
        return program.outputs if several == 1 else ()

    def _output(self, prediction: Prediction) -> StepOutput:
        values = prediction.to_dict()
        outputs = {name: values.pop(name) for name in self.program.outputs if name in values}
        route = prediction.route
        return StepOutput(
            outputs,
            outputs,
            route=route,
            worker=route.removeprefix("python:") if route.startswith("python:") else "",
            usage=prediction.usage,
            cached=prediction.cached,
            extra=values,
        )


def _streamed(program: Program, inputs: dict[str, Any], job: StepJob) -> Prediction:
    for item in program.stream(**inputs):
        if isinstance(item, Prediction):
            return item
        job.run.chunked(job.node.name, item)
    raise AssertionError("a stream ends with its prediction")


async def _astreamed(program: Program, inputs: dict[str, Any], job: StepJob) -> Prediction:
    async for item in program.astream(**inputs):
        if isinstance(item, Prediction):
            return item
        job.run.chunked(job.node.name, item)
    raise AssertionError("a stream ends with its prediction")
