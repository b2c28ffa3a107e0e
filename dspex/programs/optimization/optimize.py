"""Optimize programs in the capped pool; the result is served like any other program.

best = dspex.optimize("question -> answer", trainset, metric=my_metric)
best.score, best.baseline_score
best(question="...")
best.save("qa.json"); dspex.load("qa.json")

job = dspex.optimize("question -> answer", trainset, metric=my_metric, wait=False)
job.progress, job.partial; job.cancel(); job.result()
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from ...lm.given_lms import takes_lms
from ...services.caller_loop import awaited_on
from ..examples.example_jobs import Progress
from ..saving.optimized import Optimized
from .checked_optimization import CheckedOptimization
from .held_out_test import with_result
from .job import OptimizationJob
from .job_budget import JobBudget
from .job_checks import Examples, Metric, checked_job
from .job_start import JournalPath, is_shown, reported, require_how, started, waited
from .optimizer_options import OptimizerName, OptimizerOptions

if TYPE_CHECKING:
    from ...adapters.given_adapter import AdapterLike
    from ...defaults import LMLike
    from ...pools.supervising import Supervising
    from ..calling.program import S
    from ..factories.program_factories import Asked


class OptimizeOptions(OptimizerOptions, total=False):
    """The keywords of `optimize`, for `aoptimize`."""

    optimizer: OptimizerName
    metric: Metric | None
    valset: Examples | None
    testset: Examples | None
    keep_baseline: bool
    on_progress: Progress | None
    progress: bool | None
    timeout: float | None
    metric_timeout: float | None
    metric_pool: str | None
    budget: JobBudget | None
    journal: JournalPath
    lm: LMLike | None
    prompt_lm: LMLike | None
    adapter: AdapterLike | None
    inputs: Sequence[str] | None
    supervisor: Supervising | None
    session: str | None


_OF_RESULTS = ("testset", "keep_baseline")
_OF_JOBS = ("on_progress", "progress", "timeout", "budget", "journal")


@overload
def optimize(
    program: Asked[S],
    trainset: Examples,
    *,
    optimizer: OptimizerName = "miprov2",
    metric: Metric | None = None,
    valset: Examples | None = None,
    testset: Examples | None = None,
    keep_baseline: bool = True,
    on_progress: Progress | None = None,
    progress: bool | None = None,
    timeout: float | None = None,
    metric_timeout: float | None = None,
    metric_pool: str | None = None,
    budget: JobBudget | None = None,
    journal: JournalPath = None,
    wait: Literal[True] = True,
    lm: LMLike | None = None,
    prompt_lm: LMLike | None = None,
    adapter: AdapterLike | None = None,
    inputs: Sequence[str] | None = None,
    supervisor: Supervising | None = None,
    session: str | None = None,
    **options: Unpack[OptimizerOptions],
) -> Optimized[S]: ...


@overload
def optimize(
    program: Asked[S],
    trainset: Examples,
    *,
    optimizer: OptimizerName = "miprov2",
    metric: Metric | None = None,
    valset: Examples | None = None,
    testset: Examples | None = None,
    keep_baseline: bool = True,
    on_progress: Progress | None = None,
    progress: bool | None = None,
    timeout: float | None = None,
    metric_timeout: float | None = None,
    metric_pool: str | None = None,
    budget: JobBudget | None = None,
    journal: JournalPath = None,
    wait: Literal[False],
    lm: LMLike | None = None,
    prompt_lm: LMLike | None = None,
    adapter: AdapterLike | None = None,
    inputs: Sequence[str] | None = None,
    supervisor: Supervising | None = None,
    session: str | None = None,
    **options: Unpack[OptimizerOptions],
) -> OptimizationJob[S]: ...


@takes_lms
def optimize(
    program: Asked[S],
    trainset: Examples,
    *,
    optimizer: OptimizerName = "miprov2",
    metric: Metric | None = None,
    valset: Examples | None = None,
    testset: Examples | None = None,
    keep_baseline: bool = True,
    on_progress: Progress | None = None,
    progress: bool | None = None,
    timeout: float | None = None,
    metric_timeout: float | None = None,
    metric_pool: str | None = None,
    budget: JobBudget | None = None,
    journal: JournalPath = None,
    wait: bool = True,
    lm: LMLike | None = None,
    prompt_lm: LMLike | None = None,
    adapter: AdapterLike | None = None,
    inputs: Sequence[str] | None = None,
    supervisor: Supervising | None = None,
    session: str | None = None,
    **options: Unpack[OptimizerOptions],
) -> Optimized[S] | OptimizationJob[S]:
    """Optimize a program (or a signature) in the `mipro` pool; blocks, or returns the job with `wait=False`.

    `trainset` and `valset` are lists of {field: value}. `metric` is a built-in's name ("exact_match", "f1", ...), an
    import path "module:function", which runs in the worker, or a function of this process, plain or asynchronous. A
    function is called as DSPy calls it: (example, prediction), with `trace` while demonstrations are collected, and
    with `pred_name` and `pred_trace` in GEPA if it has parameters for them; other parameters keep their defaults.

    It shows its progress: a bar in terminals and notebooks, lines on stderr elsewhere, nothing with `progress=False`,
    or where `on_progress` gets each report. `timeout` bounds the whole job in seconds, `budget` what it may spend
    ({"requests", "tokens", "usd"}); None is no limit. `metric_timeout` bounds each call of the metric: 600 s, math.inf
    is no limit. `metric_pool` names the pool whose workers share the work of a metric by import path. `journal` is
    the path of a new file in which the job keeps what
    it has paid for, so that `dspex.resume` can go on with it after the death of this process; without one, of a file
    in the settings' [jobs] folder, if there is that; False is none. A worker that dies is replaced, three times, and
    nothing is paid twice. `testset` holds examples that the optimizer never sees: the result and the baseline are
    scored on them at the end, for `best.test`, which compares the two. A result that scores less than the baseline on
    the validation examples is flagged (`best.is_worse`), and the baseline is returned in its place, unless
    `keep_baseline` is False. Other options are the optimizer's own (`num_candidates`, `num_trials`, `seed`, ...).

    Raises:
        UnknownName, SettingsError, InvalidInput: an optimizer, option, metric or example that cannot be; nothing was
            spent.
        JournalError: the journal cannot be begun; nothing was spent.
        MissingDependency: the optimizer needs a package that the workers lack; nothing was spent.
        MetricTimeout: the metric hung at an example; `partial` is the best so far.
        OptimizationFailed: it ended with nothing but errors of the metric or the model.
        BudgetExceeded, CallTimeout, WorkerMemoryExceeded, WorkerDied: it ended early; `partial` is the best so far.
    """
    require_how(timeout, budget, journal)
    asked: Any = (metric, valset, lm, prompt_lm, adapter, inputs, supervisor, session, metric_timeout, metric_pool)
    job = started(
        with_result(checked_job(program, trainset, optimizer, options, *asked), testset, keep_baseline),
        timeout=timeout,
        budget=budget,
        journal=journal,
        is_shown=is_shown(progress, on_progress),
        on_progress=None if wait else on_progress,
    )
    return waited(job, on_progress) if wait else job


@takes_lms
async def aoptimize(program: Asked[S], trainset: Examples, **options: Unpack[OptimizeOptions]) -> Optimized[S]:
    """`optimize`, awaited on the running loop; cancelling the task cancels the job, at once."""
    given: dict[str, Any] = {**options}
    own = {name: given.pop(name) for name in OptimizerOptions.__optional_keys__ & given.keys()}
    known = OptimizeOptions.__optional_keys__ - OptimizerOptions.__optional_keys__
    own |= {name: given.pop(name) for name in given.keys() - known}  # which no optimizer has: refused by name
    how: dict[str, Any] = {name: given.pop(name, None) for name in _OF_JOBS}
    on_progress, progress = how.pop("on_progress"), how.pop("progress")
    require_how(**how)
    of_result = {name: given.pop(name) for name in _OF_RESULTS if name in given}

    def check() -> CheckedOptimization[S]:
        return with_result(checked_job(program, trainset, options=own, **given), **of_result)

    checked = await asyncio.to_thread(check)  # it may start workers
    with awaited_on(asyncio.get_running_loop()):
        job: OptimizationJob[S] = started(checked, is_shown=is_shown(progress, on_progress), **how)
    try:
        if on_progress is not None:
            async for event in job.aevents():
                reported(event, on_progress)
        return await job
    finally:
        job.cancel()  # of a task that was cancelled; else there is nothing left to cancel
