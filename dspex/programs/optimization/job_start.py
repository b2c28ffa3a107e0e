"""Start a job: its journal, its account, and who looks on; and wait for one."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...errors import SettingsError
from ..examples.example_jobs import Progress
from ..options import program_options
from ..saving.optimized import Optimized
from .checked_optimization import CheckedOptimization
from .job import OptimizationJob
from .job_budget import JobAccount, JobBudget, checked_budget
from .job_display import JobDisplay, display_of
from .job_events import JobEvent
from .job_progress import JobProgress
from .job_run import JobRun
from .journal import Journal
from .journal_identity import identity

if TYPE_CHECKING:
    from ...types.prediction import S_co

JournalPath = str | os.PathLike[str] | Literal[False] | None
ENDING_S = 5.0  # that an interrupted caller waits for its job's end
REPORTED = frozenset({"stage", "progress", "candidate", "heartbeat"})  # events that `on_progress` gets


def require_how(timeout: float | None, budget: JobBudget | None, journal: JournalPath) -> None:
    """Check how a job is to run.

    Raises:
        SettingsError: it cannot.
    """
    program_options.require_seconds(timeout)
    checked_budget(budget)
    if journal is not None and journal is not False and not (isinstance(journal, str | os.PathLike) and str(journal)):
        raise SettingsError(f"journal is {journal!r}; it is a file's path, or False for none.", key="journal")


def started(
    checked: CheckedOptimization[S_co],
    *,
    timeout: float | None = None,
    budget: JobBudget | None = None,
    journal: JournalPath = None,
    is_shown: bool = False,
    on_progress: Progress | None = None,
) -> OptimizationJob[S_co]:
    """Return the job, begun. `on_progress` is called in the job's own thread.

    Raises:
        JournalError: its journal cannot be begun.
        SettingsError: the settings' [jobs] table holds something else than a folder.
    """
    id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    path = _journal_path(checked, journal, id)
    about = {} if path is None else identity(checked, id, timeout=timeout, budget=budget)
    opened = Journal.temporary() if path is None else Journal.create(path, about)
    run = JobRun(id, checked, opened, JobAccount(f"optimization {id}", budget), timeout=timeout)
    return begun(run, is_shown=is_shown, on_progress=on_progress)


def begun(run: JobRun[S_co], *, is_shown: bool, on_progress: Progress | None) -> OptimizationJob[S_co]:
    """Return the job of a run, which is started with those who look on."""
    if is_shown:
        run.listeners.append(_Shown(display_of(f"dspex {run.checked.optimizer}")))
    if on_progress is not None:
        run.listeners.append(lambda event, _: reported(event, on_progress))
    run.start()
    return OptimizationJob(run)


def waited(job: OptimizationJob[S_co], on_progress: Progress | None) -> Optimized[S_co]:
    """Return the job's result; `on_progress` is called in this thread. Whoever interrupts the wait ends the job.

    Raises:
        OptimizationFailed and others: as `OptimizationJob.result`.
    """
    try:
        if on_progress is not None:
            for event in job.events():
                reported(event, on_progress)
        return job.result()
    except BaseException as error:  # Ctrl-C, or an error of on_progress: nobody wants the rest
        if job.cancel():
            with contextlib.suppress(BaseException):
                job.wait(ENDING_S)
                error.partial = job.partial  # type: ignore[attr-defined]
        raise


def reported(event: JobEvent, on_progress: Progress) -> None:
    """Call `on_progress` with a worker's report, if the event is one."""
    if event.kind in REPORTED:
        on_progress({name: value for name, value in event.facts.items() if name != "candidate"})


def is_shown(progress: bool | None, on_progress: Progress | None) -> bool:
    """Return whether a job shows its progress: unless somebody else does, or it shall not."""
    return on_progress is None if progress is None else progress


class _Shown:
    """Shows a job; a display that fails (a stream that was closed) is no reason to end it."""

    def __init__(self, display: JobDisplay) -> None:
        self._display: JobDisplay | None = display

    def __call__(self, event: JobEvent, progress: JobProgress) -> None:
        if self._display is None:
            return
        try:
            self._display.show(event, progress)
        except Exception:
            self._display = None


def _journal_path(checked: CheckedOptimization[Any], given: JournalPath, id: str) -> Path | None:
    if given is False:
        return None
    if given is not None:
        return Path(given).expanduser().absolute()
    folder = jobs_folder(checked.student.supervisor_used.config.tables)
    return None if folder is None else folder / f"{id}.jsonl"


def jobs_folder(tables: Mapping[str, Any]) -> Path | None:
    """Return the folder of jobs' journals that the settings' [jobs] table names.

    Raises:
        SettingsError: the table holds something else.
    """
    table = tables.get("jobs")
    if table is None:
        return None
    folder = table.get("folder") if isinstance(table, Mapping) else None
    if not isinstance(table, Mapping) or len(table) != 1 or not isinstance(folder, str) or not folder:
        raise SettingsError('The [jobs] table takes folder, such as folder = "/var/lib/myapp/jobs".', key="jobs")
    return Path(folder).expanduser().absolute()
