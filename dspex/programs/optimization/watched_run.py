"""`WatchedRun`: a job as clients of the control socket see it: plain data, without the states of its candidates."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from dspex_worker.wire.error_codec import plain

from ...lm.redaction import redact
from .job import OptimizationJob
from .job_events import LAST_KINDS, JobEvent
from .job_run import JobRun


class WatchedRun:
    """One job of this process; see `services.running_jobs.WatchedJob`."""

    def __init__(self, job: OptimizationJob[Any], run: JobRun[Any]) -> None:
        self.id = job.id
        self._job = job
        self._run = run

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._run.outcome.done()

    @property
    def row(self) -> dict[str, Any]:
        """The same as a journal's row, with what only a running job knows."""
        job, checked = self._job, self._run.checked
        progress = job.progress
        return {
            "id": self.id,
            "program": checked.title,
            "optimizer": checked.optimizer,
            "state": job.state,
            "stage": progress.stage,
            "trial": progress.trial,
            "trials": progress.trials,
            "best": progress.best,
            "baseline": progress.baseline,
            "requests": progress.requests,
            "tokens": progress.tokens,
            "cost": progress.cost,
            "elapsed": progress.elapsed,
            "eta": progress.eta,
            "waiting": progress.waiting,
            "waiting_s": progress.waiting_s,
            "workers": progress.workers,
            "worker": self._run.worker,
            "message": self._message(),
            "journal": None if job.journal is None else str(job.journal),
        }

    def cancel(self) -> bool:
        """End it."""
        return self._job.cancel()

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Yield what happens, from the start."""
        async for event in self._job.aevents():
            yield _plain_event(event)

    def recent(self) -> list[dict[str, Any]]:
        """Return what has happened."""
        return [_plain_event(event) for event in self._run.events.so_far()]

    def document(self) -> dict[str, Any] | None:
        """Return the best program so far as its file has it."""
        best = self._job.partial
        return None if best is None else best.document()

    def _message(self) -> str:
        last = self._run.events.last()
        return str(_readable(last.facts.get("message") or "")) if last is not None and last.kind in LAST_KINDS else ""


def _plain_event(event: JobEvent) -> dict[str, Any]:
    facts = dict(event.facts)
    if isinstance(candidate := facts.get("candidate"), Mapping):  # its state may be larger than a message
        facts["candidate"] = {name: value for name, value in candidate.items() if name != "state"}
    return {"number": event.number, "kind": event.kind, "at": event.at, "facts": _readable(facts)}


def _readable(value: Any) -> Any:
    if isinstance(value, str):
        return plain(redact(value))
    if isinstance(value, Mapping):
        return {str(name): _readable(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(one) for one in value]
    return plain(value)
