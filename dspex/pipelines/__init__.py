"""Pipelines: steps that run here and steps that run in workers, over one state.

    p = dspex.pipeline([
        dspex.native("question -> queries: list[str]"),
        dspex.parallel([dspex.native(search, index="docs"), dspex.native(search_web)], into="evidence"),
        dspex.python("dspy.ChainOfThought", signature="question, evidence -> answer"),
    ])
    p.run({"question": "..."})["answer"]

`assembly` puts steps together, `running` carries out one run, `drivers` has it block or await; the kinds of steps are
in `callables`, `program_steps`, `worker_steps`, `commands`, `rendering`, `keeping` and `composites`. Rules P1 to P9.
"""

from __future__ import annotations

from ..programs.scopes import Optimization
from .assembly import Pipeline, StepPlan, pipeline
from .callables import native
from .commands import command
from .composites import conditional, map_each, parallel
from .keeping import cache_step
from .results import Result, Status, StepRecord, Steps
from .steps import Step
from .watching import AsyncEventStream, EventKind, EventStream, PipelineEvent
from .worker_steps import python

__all__ = [
    "AsyncEventStream",
    "EventKind",
    "EventStream",
    "Optimization",
    "Pipeline",
    "PipelineEvent",
    "Result",
    "Status",
    "Step",
    "StepPlan",
    "StepRecord",
    "Steps",
    "cache_step",
    "command",
    "conditional",
    "map_each",
    "native",
    "parallel",
    "pipeline",
    "python",
]
