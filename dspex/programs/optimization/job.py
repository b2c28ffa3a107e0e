"""`OptimizationJob`: watch an optimization, stop it, and take what it found."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any, Generic, Literal

from ...errors import ForkedSupervisor
from ...types.prediction import S_co
from ..saving.optimized import Optimized
from .job_events import JobEvent
from .job_progress import JobProgress
from .job_run import JobRun

JobState = Literal["queued", "running", "cancelling", "done", "failed", "stopped"]


class OptimizationJob(Generic[S_co]):
    """An optimization that runs; made by `dspex.optimize(..., wait=False)` and `dspex.resume(..., wait=False)`.

    It goes on whether anybody looks or not, and ends with its process (a journal outlives that). Any thread may use
    it, and any event loop: `await job` is `job.result()`, awaited.
    """

    def __init__(self, run: JobRun[S_co]) -> None:
        self.id = run.id
        self._run = run
        self._pid = os.getpid()

    @property
    def state(self) -> JobState:
        """ "queued" until a worker has it, "running", "cancelling", and at the end "done", "failed" or "stopped"."""
        state: Any = self._run.state
        return "running" if state == "queued" and self._run.has_worker else state

    @property
    def progress(self) -> JobProgress:
        """How far it is, what it has spent, and an estimate of the seconds that are left."""
        return self._run.progress

    @property
    def partial(self) -> Optimized[S_co] | None:
        """The best program found so far, with all trials; the baseline until something is better, None before that."""
        run = self._run
        return run.outcome.result() if run.state == "done" and run.outcome.done() else run.partial

    @property
    def journal(self) -> Path | None:
        """The file from which `dspex.resume` goes on with it."""
        return self._run.journal.path

    def events(self) -> Iterator[JobEvent]:
        """Yield what has happened, from the start, and what happens, each once, until the job ends; blocks.

        Each call is a reader of its own. Of counts and heartbeats in a row a reader gets the newest.
        """
        self._require_own_process()
        return self._run.events.read()

    def aevents(self) -> AsyncIterator[JobEvent]:
        """`events`, for `async for`."""
        self._require_own_process()
        return self._run.events.aread()

    def cancel(self) -> bool:
        """End it now: its waits for language models end, and its worker is free. `partial` keeps the best so far.

        Return whether there was something to cancel. A job that was cancelled ends as "stopped": `result` raises
        OptimizationStopped, whose `partial` is the same.
        """
        self._require_own_process()
        return self._run.cancel()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, for `timeout` seconds at most; return whether it has."""
        self._require_own_process()
        return bool(concurrent.futures.wait([self._run.outcome], timeout).done)

    def result(self, timeout: float | None = None) -> Optimized[S_co]:
        """Return the optimized program; blocks. The job goes on if `timeout` seconds pass.

        Raises:
            TimeoutError: it has not ended by then. OptimizationStopped: it was cancelled. OptimizationFailed,
            BudgetExceeded, CallTimeout, WorkerDied, WorkerMemoryExceeded and others: how it failed. The
                `partial` of each is the best program that was found, None where there was none.
        """
        self._require_own_process()
        try:
            return self._run.outcome.result(timeout)
        except concurrent.futures.TimeoutError:
            if self._run.outcome.done():
                raise
            text = f"The optimization {self.id} has not ended within {timeout:g} s; it goes on."
            raise TimeoutError(text) from None

    def __await__(self) -> Generator[Any, None, Optimized[S_co]]:
        """Wait for the result; cancelling the task that waits leaves the job alone (`job.cancel()` ends it)."""
        self._require_own_process()
        outcome = asyncio.wrap_future(self._run.outcome)
        outcome.add_done_callback(_looked_at)
        return asyncio.shield(outcome).__await__()

    def _require_own_process(self) -> None:
        if self._pid != os.getpid():
            raise ForkedSupervisor(f"The optimization {self.id} runs in the process that this one was forked from.")

    def __repr__(self) -> str:
        return f"<optimization {self.id}: {self.state}, {self.progress.line()}>"


def _looked_at(outcome: asyncio.Future[Any]) -> None:
    """Look at an error that nobody waits for any more: asyncio would report it as forgotten."""
    if not outcome.cancelled():
        outcome.exception()
