"""The optimizations of one supervisor, for those who list, watch and cancel them from outside. Any thread."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol

from ..errors import PoolSaturated, UnknownName, UsageError

ENDED_KEPT = 20  # jobs that have ended, which can still be looked at
STARTED_MOST = 16  # of clients that run or wait at a time

JobRow = dict[str, Any]  # see `WatchedJob.row`
JobStarter = Callable[[Mapping[str, Any]], "WatchedJob"]


class WatchedJob(Protocol):
    """One optimization, as others see it."""

    @property
    def id(self) -> str:
        """Its name."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        ...

    @property
    def row(self) -> JobRow:
        """What it is, how far it is and what it has spent, as plain data."""
        ...

    def cancel(self) -> bool:
        """End it; return whether there was something to end."""
        ...

    def events(self) -> AsyncIterator[dict[str, Any]]:
        """Yield what has happened, and what happens until it ends, as plain data."""
        ...

    def recent(self) -> list[dict[str, Any]]:
        """Return what has happened."""
        ...

    def document(self) -> dict[str, Any] | None:
        """Return the best program so far as its file has it, None before there is one."""
        ...


class RunningJobs:
    """The jobs that run, and the last that have ended, in the order in which they began."""

    def __init__(self) -> None:
        self._jobs: dict[str, WatchedJob] = {}
        self._started: set[str] = set()  # by clients
        self._lock = threading.Lock()
        self.starter: JobStarter | None = None  # makes a client's job; None: clients cannot start any

    def add(self, job: WatchedJob) -> None:
        """Add a job that begins."""
        with self._lock:
            self._jobs.pop(job.id, None)  # one that goes on again is the newest
            self._jobs[job.id] = job
            ended = [id for id, one in self._jobs.items() if one.is_over]
            for id in ended[: max(0, len(ended) - ENDED_KEPT)]:
                del self._jobs[id]
                self._started.discard(id)

    def rows(self) -> list[JobRow]:
        """Return the jobs' rows."""
        with self._lock:
            jobs = list(self._jobs.values())
        return [job.row for job in jobs]

    def job(self, id: str) -> WatchedJob:
        """Return a job.

        Raises:
            UnknownName: there is none of this id.
        """
        with self._lock:
            if (found := self._jobs.get(id)) is not None:
                return found
            known = list(self._jobs)
        raise UnknownName("job", id, known)

    def start(self, asked: Mapping[str, Any]) -> WatchedJob:
        """Start a client's job; blocks while it is checked.

        Raises:
            UsageError: this supervisor starts none for clients.
            PoolSaturated: too many of them are under way.
            UnknownName, SettingsError, InvalidInput and others: it cannot be; nothing was spent.
        """
        if self.starter is None:
            raise UsageError("This supervisor starts no jobs for clients: a service does, which `dspex start` runs.")
        with self._lock:
            live = sum(not job.is_over for id, job in self._jobs.items() if id in self._started)
        if live >= STARTED_MOST:
            raise PoolSaturated("jobs", queued=live, limit=STARTED_MOST, retry_after=60.0)
        job = self.starter(asked)
        with self._lock:
            self._started.add(job.id)
        return job
