"""Read the scores of a source's optimizations, for their curves: of running jobs now and then, of ended ones once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import DspexError
from .sources import Source

Row = dict[str, Any]
SHOWN = ("id", "program", "optimizer", "state", "stage", "trial", "trials", "best", "baseline", "requests", "tokens",
         "cost", "elapsed", "eta", "message")  # fmt: skip
JOBS_MOST = 20
SCORES_MOST = 400  # of one curve
EVERY_S = 5.0
LIVE = ("queued", "running", "cancelling")


class JobCurves:
    """The jobs that were seen."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._read: dict[str, tuple[float, str, list[float]]] = {}

    def rows(self, jobs: Iterable[Mapping[str, Any]], now: float) -> list[Row]:
        """Return the newest jobs, the newest first, each with its `scores` in the order in which they came."""
        newest = list(jobs)[-JOBS_MOST:][::-1]
        self._read = {job["id"]: self._scores(job, now) for job in newest}
        return [{**{name: job.get(name) for name in SHOWN}, "scores": self._read[job["id"]][2]} for job in newest]

    def _scores(self, job: Mapping[str, Any], now: float) -> tuple[float, str, list[float]]:
        known = self._read.get(job["id"])
        if known is not None and known[1] == job["state"] and (job["state"] not in LIVE or now < known[0] + EVERY_S):
            return known
        try:
            events = self._source.job_events(job["id"])
        except DspexError:  # it has just been forgotten
            return now, job["state"], []
        return now, job["state"], scores_of(events)


def scores_of(events: Iterable[Mapping[str, Any]]) -> list[float]:
    """Return the scores of the candidates that a job's events tell."""
    told = (event["facts"].get("candidate") for event in events if event["kind"] == "candidate")
    scores = [one.get("score") for one in told if isinstance(one, Mapping)]
    return [float(score) for score in scores if isinstance(score, int | float)][-SCORES_MOST:]
