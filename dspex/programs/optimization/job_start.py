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
from ...services.services import services_of
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
from .job_settings import job_settings
from .journal import Journal
from .journal_identity import identity
from .watched_run import WatchedRun

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
    asked: Mapping[str, Any] | None = None,
) -> OptimizationJob[S_co]:
    """Return the job, begun. `on_progress` is called in the job's own thread. `asked` is a client's request for it.

    Raises:
        JournalError: its journal cannot be begun.
        SettingsError: the settings' [jobs] table holds something else than a folder.
    """
    id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    path = _journal_path(checked, journal, id)
    about = {} if path is None else identity(checked, id, timeout=timeout, budget=budget)
    if path is not None and asked is not None:
        about["asked"] = dict(asked)
    opened = Journal.temporary() if path is None else Journal.create(path, about)
    run = JobRun(id, checked, opened, JobAccount(f"optimization {id}", budget), timeout=timeout)
    return begun(run, is_shown=is_shown, on_progress=on_progress)


def begun(run: JobRun[S_co], *, is_shown: bool, on_progress: Progress | None) -> OptimizationJob[S_co]:
    """Return the job of a run, which is started with those who look on."""
    if is_shown:
        run.listeners.append(_Shown(display_of(f"dspex {run.checked.optimizer}")))
    if on_progress is not None:
        run.listeners.append(lambda event, _: reported(event, on_progress))
    job = OptimizationJob(run)
    services_of(run.checked.student.supervisor_used).jobs.add(WatchedRun(job, run))
    run.start()
    return job


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
        except Exception:  # a display that fails is no failure of the job
            self._display = None


def _journal_path(checked: CheckedOptimization[Any], given: JournalPath, id: str) -> Path | None:
    if given is False:
        return None
    if given is not None:
        return Path(given).expanduser().absolute()
    folder = job_settings(checked.student.supervisor_used.config.tables).folder
    return None if folder is None else folder / f"{id}.jsonl"
