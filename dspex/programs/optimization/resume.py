"""Go on with an optimization from its journal: another process than the one that began it, or the same."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from dspex_worker.user_calls import name_of

from ...errors import InvalidInput, JournalError
from ...lm.given_lms import takes_lms
from ...services.metric_limit import METRIC_TIMEOUT
from ..examples.example_jobs import Progress
from ..factories.loading import loaded_from
from ..files.saved_file import SavedFile
from ..saving.optimized import Optimized
from .checked_optimization import CheckedOptimization
from .held_out_test import with_result
from .job import OptimizationJob
from .job_budget import JobAccount, JobBudget
from .job_checks import Examples, Metric, checked_job
from .job_run import JobRun
from .job_start import begun, is_shown, require_how, waited
from .journal import Journal
from .journal_identity import is_same_metric, require_same, versions
from .optimizer_options import OptimizerOptions

if TYPE_CHECKING:
    from ...defaults import LMLike
    from ...pools.supervising import Supervising


@overload
def resume(
    path: str | os.PathLike[str],
    *,
    program: Any = None,
    trainset: Examples | None = None,
    valset: Examples | None = None,
    testset: Examples | None = None,
    keep_baseline: bool | None = None,
    metric: Metric | None = None,
    tools: Sequence[Callable[..., Any]] | None = None,
    lm: LMLike | None = None,
    prompt_lm: LMLike | None = None,
    options: OptimizerOptions | None = None,
    timeout: float | None = None,
    metric_timeout: float | None = None,
    metric_pool: str | None = None,
    budget: JobBudget | None = None,
    on_progress: Progress | None = None,
    progress: bool | None = None,
    supervisor: Supervising | None = None,
    wait: Literal[True] = True,
) -> Optimized[Any]: ...


@overload
def resume(
    path: str | os.PathLike[str],
    *,
    program: Any = None,
    trainset: Examples | None = None,
    valset: Examples | None = None,
    testset: Examples | None = None,
    keep_baseline: bool | None = None,
    metric: Metric | None = None,
    tools: Sequence[Callable[..., Any]] | None = None,
    lm: LMLike | None = None,
    prompt_lm: LMLike | None = None,
    options: OptimizerOptions | None = None,
    timeout: float | None = None,
    metric_timeout: float | None = None,
    metric_pool: str | None = None,
    budget: JobBudget | None = None,
    on_progress: Progress | None = None,
    progress: bool | None = None,
    supervisor: Supervising | None = None,
    wait: Literal[False],
) -> OptimizationJob[Any]: ...


@takes_lms
def resume(
    path: str | os.PathLike[str],
    *,
    program: Any = None,
    trainset: Examples | None = None,
    valset: Examples | None = None,
    testset: Examples | None = None,
    keep_baseline: bool | None = None,
    metric: Metric | None = None,
    tools: Sequence[Callable[..., Any]] | None = None,
    lm: LMLike | None = None,
    prompt_lm: LMLike | None = None,
    options: OptimizerOptions | None = None,
    timeout: float | None = None,
    metric_timeout: float | None = None,
    metric_pool: str | None = None,
    budget: JobBudget | None = None,
    on_progress: Progress | None = None,
    progress: bool | None = None,
    supervisor: Supervising | None = None,
    wait: bool = True,
) -> Optimized[Any] | OptimizationJob[Any]:
    """Go on with the optimization whose journal this is; blocks, or returns the job with `wait=False`.

    The optimizer begins anew with the same seed, and everything that it had been answered by language models, by a
    metric or a tool of the host comes from the journal: at once, and unpaid. So it comes to where it was, and goes on;
    only requests that were under way are sent again. A job that had ended gives its result again.

    What no file holds is given again: the function of a `metric`, or its import path, `tools`, a `program` of your own
    class, examples with Python objects, a `prompt_lm`, and the `options` of the optimizer if one of them is a language
    model, a program or code. The language model is `lm`, or the configured one; it must be
    the one that the journal tells of. Where the metric's code is another than before, its results are made anew, and
    its answers are kept. `testset`, `keep_baseline`, `timeout`, `metric_timeout`,
    `metric_pool` and `budget` are as they were unless they are given; what was spent before counts.

    Raises:
        JournalError: the file is missing, in use, damaged, foreign or of another version, something must be given again
            (its `missing` names it), or what is given is of another job. Nothing was spent.
        OptimizationFailed, MetricTimeout, BudgetExceeded, CallTimeout, WorkerDied, WorkerMemoryExceeded: as
            `dspex.optimize`.
    """
    if not isinstance(path, str | os.PathLike) or not str(path):
        raise InvalidInput(f"A journal is named by its file's path, not by {path!r}.", field="path")
    require_how(timeout, budget, None)
    journal = Journal.resume(Path(path).expanduser().absolute())
    try:
        given = {"program": program, "trainset": trainset, "metric": metric, "tools": tools, "prompt_lm": prompt_lm}
        given["options"] = options
        _require_given(journal, given)
        limit = metric_timeout or journal.about.get("metric_timeout", METRIC_TIMEOUT) or math.inf
        spread = metric_pool or journal.about.get("metric_pool")
        at_speed: Any = {"metric_timeout": limit, "metric_pool": spread}
        checked = _checked(journal, given, valset=valset, lm=lm, supervisor=supervisor, **at_speed)
        require_same(journal.about, checked, str(journal.path))
        about = journal.about
        held_out = about.get("testset") if testset is None else testset
        keeps = about.get("keep_baseline", True) if keep_baseline is None else keep_baseline
        checked = with_result(checked, held_out, keeps)
        job = _begun(journal, checked, timeout, budget, on_progress, progress, wait=wait)
    except BaseException:  # also Ctrl-C: the file would stay locked
        journal.close()
        raise
    return waited(job, on_progress) if wait else job


def _require_given(journal: Journal, given: Mapping[str, Any]) -> None:
    """Check that all is given again that the journal could not hold.

    Raises:
        JournalError: something is missing; the message names it all.
    """
    about, asked = journal.about, dict[str, str]()
    metric = about.get("metric") or {}
    if given["program"] is None and about.get("program") is None:
        asked["program"] = f"program=... ({about.get('program_is_given')})"
    if given["trainset"] is None and about.get("trainset") is None:
        asked["trainset"] = "trainset=[...] and, if there was one, valset=[...] (they hold Python objects)"
    if given["metric"] is None and "name" not in metric:
        title = metric.get("function") or metric.get("import")
        asked["metric"] = f"metric={title if 'function' in metric else repr(title)}"
    if given["program"] is None and given["tools"] is None and about.get("tools"):
        asked["tools"] = f"tools=[{', '.join(map(str, about['tools']))}]"
    if given["prompt_lm"] is None and about.get("prompt_lm") is not None:
        asked["prompt_lm"] = f"prompt_lm=... ({about['prompt_lm'].get('named')})"
    if given["options"] is None and about.get("options") is None:
        held = ", ".join(f"{path} ({named})" for path, named in (about.get("given_options") or {}).items())
        asked["options"] = f"options={{...}}, all of the optimizer's ({held} can be in no file)"
    if asked:
        raise JournalError(
            f"To go on with {journal.path} give again what no file holds: "
            f"dspex.resume(path, {', '.join(asked.values())}).",
            path=str(journal.path),
            reason="incomplete",
            missing=tuple(asked),
        )


def _checked(
    journal: Journal,
    given: Mapping[str, Any],
    *,
    valset: Examples | None,
    lm: LMLike | None,
    supervisor: Supervising | None,
    metric_timeout: float,
    metric_pool: str | None,
) -> CheckedOptimization[Any]:
    """Return the journal's job, checked as a new one."""
    about, program = journal.about, given["program"]
    if program is None:
        content = json.dumps(about["program"]).encode("utf-8")
        saved = SavedFile.of(str(journal.path), content)
        program = loaded_from(saved, tools=given["tools"]).program
        if about.get("rollout_id") is not None:
            program = program.using(rollout_id=about["rollout_id"])
    asked: Any = {
        "trainset": about["trainset"] if given["trainset"] is None else given["trainset"],
        "valset": about["valset"] if valset is None else valset,
        "metric": about["metric"] if given["metric"] is None else given["metric"],
    }
    return checked_job(
        program,
        **asked,
        optimizer=about["optimizer"],
        options=about["options"] if given["options"] is None else given["options"],
        lm=lm,
        prompt_lm=given["prompt_lm"],
        adapter=about.get("adapter"),
        inputs=about["inputs"],
        supervisor=supervisor,
        metric_timeout=metric_timeout,
        metric_pool=metric_pool,
    )


def _begun(
    journal: Journal,
    checked: CheckedOptimization[Any],
    timeout: float | None,
    budget: JobBudget | None,
    on_progress: Progress | None,
    progress: bool | None,
    *,
    wait: bool,
) -> OptimizationJob[Any]:
    about = journal.about
    account = JobAccount(f"optimization {about['id']}", budget or about.get("budget"))
    account.go_on_from(journal.spent)
    journal.deaths = 0
    run = JobRun(
        str(about["id"]),
        checked,
        journal,
        account,
        timeout=about.get("timeout") if timeout is None else timeout,
        uses_kept_metrics=is_same_metric(about, checked.metric),
    )
    journal.append("resumed", {"versions": versions()})
    if not is_same_metric(about, checked.metric):
        run.warn(f"The metric {name_of(checked.metric)} has other code than before: its results are made anew.")
    if changed := [name for name, known in (about.get("versions") or {}).items() if versions().get(name) != known]:
        run.warn(
            f"The journal was begun with other versions of {', '.join(changed)}: the optimizer may come to others."
        )
    return begun(run, is_shown=is_shown(progress, on_progress), on_progress=None if wait else on_progress)
