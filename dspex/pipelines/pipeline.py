"""`pipeline([...])`: combine steps into a pipeline, and run it.

A `Pipeline` is immutable and thread-safe; a run holds all that belongs to it (P9). The two things that a pipeline keeps
are what its cache steps hold, and, once needed, a private event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Unpack

from ..errors import InvalidInput, SettingsError
from ..lm.given_lms import takes_lms
from ..loop_thread import LoopThread
from ..programs.calling.map import Row, amap
from ..programs.calling.map import map as map_rows
from .core.plan import Plan, StepPlan
from .core.results import Result
from .core.run import PipelineRun, RunOptions, checked_options
from .core.run_events import AsyncEventStream, EventStream, Watcher
from .core.runner import run_whole
from .core.step import Step
from .drivers.cancel import BranchFlag
from .drivers.task_driver import TaskDriver
from .drivers.thread_driver import ThreadDriver, completed
from .steps.composite_steps import PipelineStep
from .steps.step_factories import as_step


def pipeline(steps: Sequence[Any], *, name: str | None = None) -> Pipeline:
    """Return the pipeline of these steps: what `native`, `python`, `parallel` and the like made, functions, pipelines.

    Raises:
        SettingsError: a step cannot work where it stands.
        KeyClash: branches of a parallel step declare to write the same name.
    """
    if isinstance(steps, str | bytes | Mapping) or not isinstance(steps, Iterable):
        raise SettingsError(f"A pipeline is made of a list of steps, not of a {type(steps).__name__}.")
    return Pipeline(Plan.of(tuple(map(as_step, steps)), name or "pipeline"))


class Pipeline:
    """Steps in sequence over one state, a dict. Made by `pipeline`; usable from any thread and event loop."""

    __slots__ = ("__weakref__", "_loop", "plan")

    plan: Plan
    _loop: LoopThread

    def __init__(self, plan: Plan) -> None:
        object.__setattr__(self, "plan", plan)
        object.__setattr__(self, "_loop", LoopThread("dspex-pipeline-loop"))

    # -- running -----------------------------------------------------------------------------------------------

    @takes_lms
    def run(self, inputs: Mapping[str, Any] | None = None, **options: Unpack[RunOptions]) -> Result:
        """Run it and return the result; blocks. See `RunOptions`.

        Raises:
            InvalidInput: an input is missing; nothing ran.
            PipelineError: a step failed; `causes` says why, `result` holds what was done until then.
        """
        run = self._begin(inputs, options)
        driver = ThreadDriver(self._loop, BranchFlag(), is_cancellable=False)
        result: Result = completed(run_whole(self.plan, run, dict(inputs or {}), driver))
        return result

    @takes_lms
    async def arun(self, inputs: Mapping[str, Any] | None = None, **options: Unpack[RunOptions]) -> Result:
        """`run`, awaited on the running loop; cancelling the task cancels the run."""
        run = self._begin(inputs, options)
        return await run_whole(self.plan, run, dict(inputs or {}), TaskDriver())

    @takes_lms
    def stream(self, inputs: Mapping[str, Any] | None = None, **options: Unpack[RunOptions]) -> EventStream:
        """Start a run and return its events as they come; the last has the `result`. Closing it cancels the run."""
        given = dict(inputs or {})
        run = self._begin(given, options)

        def work(watcher: Watcher, flag: BranchFlag) -> Result:
            run.watch(watcher)
            driver = ThreadDriver(self._loop, flag, is_cancellable=True)
            result: Result = completed(run_whole(self.plan, run, given, driver))
            return result

        return EventStream(work, self._loop)

    @takes_lms
    def astream(self, inputs: Mapping[str, Any] | None = None, **options: Unpack[RunOptions]) -> AsyncEventStream:
        """`stream`, for `async for`; needs a running event loop."""
        given = dict(inputs or {})
        run = self._begin(given, options)

        async def work(watcher: Watcher) -> Result:
            run.watch(watcher)
            return await run_whole(self.plan, run, given, TaskDriver())

        return AsyncEventStream(work)

    @takes_lms
    def map(
        self, inputs: Iterable[Mapping[str, Any]], *, max_in_flight: int = 64, **options: Unpack[RunOptions]
    ) -> Iterator[Row[Result]]:
        """Run it for each row of inputs and yield Rows in order; see `dspex.map`. `options` are those of `run`."""
        checked_options(options)
        return map_rows(lambda **row: self.run(row, **options), inputs, max_in_flight=max_in_flight)

    @takes_lms
    def amap(
        self,
        inputs: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]],
        *,
        max_in_flight: int = 64,
        **options: Unpack[RunOptions],
    ) -> AsyncIterator[Row[Result]]:
        """`map`, for `async for`."""
        checked_options(options)

        async def one(**row: Any) -> Result:
            return await self.arun(row, **options)

        return amap(one, inputs, max_in_flight=max_in_flight)

    def __call__(self, **inputs: Any) -> Result:
        """`run`, with the inputs as keyword arguments."""
        return self.run(inputs)

    async def acall(self, **inputs: Any) -> Result:
        """`arun`, with the inputs as keyword arguments."""
        return await self.arun(inputs)

    # -- looking at it -------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def steps(self) -> tuple[Step, ...]:
        return self.plan.steps

    @property
    def inputs(self) -> tuple[str, ...]:
        """The inputs that a run must be given."""
        return tuple(sorted(self.plan.flow.reads.required))

    @property
    def optional_inputs(self) -> tuple[str, ...]:
        """The inputs that a run may be given: steps take them if present, or need them if no earlier step wrote one."""
        return tuple(sorted(self.plan.flow.reads.optional))

    def validate(self, inputs: Mapping[str, Any]) -> None:
        """Check the inputs of a run.

        Raises:
            InvalidInput: it is no mapping of names, or something is missing; it says which step reads it.
        """
        if not isinstance(inputs, Mapping) or not all(isinstance(name, str) for name in inputs):
            raise InvalidInput(f"A pipeline's inputs are a dict with str keys, not a {type(inputs).__name__}.")
        for name in self.inputs:
            if name not in inputs:
                given = ", ".join(map(repr, inputs)) or "nothing"
                raise InvalidInput(
                    f"The pipeline {self.name!r} needs {name!r}, which step {self.plan.reader_of(name)!r} reads and no "
                    f"step before it writes; it was given {given}.",
                    field=name,
                )

    def explain(self) -> tuple[StepPlan, ...]:
        """Return for each step where it would run, and why; nothing is called."""
        return self.plan.explain()

    def as_step(self) -> Step:
        """Return the pipeline as a step of another; lists of steps take it as it is."""
        return PipelineStep(inner=self.plan)

    def __repr__(self) -> str:
        names = ", ".join(node.name for node in self.plan.sequence.nodes)
        return f"<{self.name}: {names or 'no steps'}>"

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"A pipeline is immutable; {name!r} cannot be set.")

    # ============================================================================================================

    def _begin(self, inputs: Mapping[str, Any] | None, options: RunOptions) -> PipelineRun:
        self.validate({} if inputs is None else inputs)
        return PipelineRun(self.name, **checked_options(options))
