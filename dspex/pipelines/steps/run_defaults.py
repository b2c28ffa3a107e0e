"""Give a step's program what the run has for it: the time that is left, a language model, a supervisor."""

from __future__ import annotations

from typing import Any

from ...programs.calling.program import Program
from ..core.step import Step, StepJob, remaining


def within_run(program: Program, step: Step, job: StepJob, **further: Any) -> Program:
    """Return the program as the run calls it; what the program has of its own goes first."""
    given: dict[str, Any] = {"timeout": remaining(job, job.run.timeout, step.policy.timeout)}
    if given["timeout"] is None:
        given["timeout"] = program.timeout
    if program.lm is None and job.run.lm is not None:
        given["lm"] = job.run.lm
    if program.supervisor is None and job.run.has_supervisor:
        given["supervisor"] = job.run.supervisor()
    return program.using(**given, **further)
