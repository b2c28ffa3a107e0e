"""Cancel a job that runs in another process of this user: by a file beside its journal, for which the job looks.

The file is this user's own and is there for as long as the request is. A job that begins with a journal removes what an
earlier request left.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path

from ...errors import InvalidInput, JobNotCancelled, UnknownName
from .journal_summary import JournalSummary, is_in_use, summaries_in, summary_of

LOOK_S = 0.5  # seconds between looks, of both
SUFFIX = ".cancel"


def cancel_job(
    journal: str | os.PathLike[str], *, folder: str | os.PathLike[str] | None = None, wait: float = 30.0
) -> str:
    """Cancel the job of a journal, whatever process of this user's it runs in, and return its state then; blocks.

    `journal` is the file's path; with `folder` also the job's id, or the beginning of it. It keeps its best so far, and
    `dspex.resume` can go on with it. `wait` is how many seconds it has to end.

    Raises:
        UnknownName, JournalError: there is no such job.
        InvalidInput: it does not run; or several jobs' ids begin so.
        JobNotCancelled: it did not end in time; `pid` is the process that runs it.
    """
    path = job_journal(journal, folder)
    found = summary_of(path)
    if not found.is_running:
        raise InvalidInput(f"The job {found.id} does not run: {found.state}.", field="journal")
    until = time.monotonic() + wait
    with _requested(path):
        while is_in_use(path):
            if time.monotonic() >= until:
                raise JobNotCancelled(found.id, pid=holder_of(path), waited=wait)
            time.sleep(LOOK_S / 5)
    return summary_of(path).state


def job_journal(journal: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None) -> Path:
    """Return the journal's path, given by itself or by its job's id.

    Raises:
        UnknownName: no journal of the folder has this id.
        InvalidInput: several have, or it is neither.
    """
    if not isinstance(journal, str | os.PathLike) or not str(journal):
        raise InvalidInput(f"A job is named by its journal's path, or its id, not by {journal!r}.", field="journal")
    path = Path(journal).expanduser().absolute()
    if folder is None or path.is_file():
        return path
    known: list[JournalSummary] = summaries_in(Path(folder).expanduser())
    named = str(journal)
    found = [one for one in known if one.id == named] or [one for one in known if one.id.startswith(named)]
    if not found:
        raise UnknownName("job", named, [one.id for one in known])
    if len(found) > 1:
        raise InvalidInput(f"{named!r} begins the ids of {len(found)} jobs: {', '.join(one.id for one in found)}.")
    return found[0].path


def holder_of(path: Path) -> int | None:
    """Return the process that has a journal open, None if the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = path.stat()
        place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5] == place:
                return int(fields[4])
    return None


class CancelRequests:
    """Looks for a request while a job runs, in a thread of its own."""

    def __init__(self, journal: Path, cancel: Callable[[], object]) -> None:
        self._path = request_path(journal)
        self._cancel = cancel
        self._ended = threading.Event()

    def start(self) -> None:
        """Begin to look; what an earlier request left is removed."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        threading.Thread(target=self._look, name="dspex-job-requests", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()

    def _look(self) -> None:
        while not self._ended.wait(LOOK_S):
            with contextlib.suppress(OSError):
                if self._path.lstat().st_uid == os.geteuid():
                    self._cancel()
                    return


def request_path(journal: Path) -> Path:
    """Return where a job is asked to end."""
    return journal.with_name(journal.name + SUFFIX)


@contextlib.contextmanager
def _requested(journal: Path) -> Generator[None]:
    path = request_path(journal)
    with contextlib.suppress(FileExistsError):  # another asks for the same
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
