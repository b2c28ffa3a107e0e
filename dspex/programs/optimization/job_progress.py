"""`JobProgress`: how far a job is, what it has spent, and how long it may take. Pure but for the clock it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a job is.

    `stage` is "queued", "start", "baseline" (the program as given is scored), "bootstrap" (demonstrations are made),
    "propose" (instructions are written), "optimize", "search" (candidates are scored), "score" (the result is), or ""
    after the end. `trial` counts the optimizer's candidates, of `trials` where it is known how many it plans. `best`
    is the best score on every example, in percent. `cost` is in USD, None where no request had a known price. `eta` is
    an estimate of the seconds that are left, None where nothing says how much there is to do. `waiting` requests have
    waited for `waiting_s` seconds, as the last heartbeat said.
    """

    stage: str = "queued"
    trial: int = 0
    trials: int | None = None
    best: float | None = None
    baseline: float | None = None
    examples: int = 0  # metric calls
    requests: int = 0
    cached_requests: int = 0
    tokens: int = 0
    cost: float | None = None
    elapsed: float = 0.0
    eta: float | None = None
    attempts: int = 0  # at demonstrations
    demos: int = 0  # that these gave
    waiting: int = 0
    waiting_s: float = 0.0
    workers: int = 1  # that the job has had

    def line(self) -> str:
        """Return it in a line of text."""
        parts = [self.stage or "ended"]
        if self.trial or self.trials:
            parts.append(f"candidate {self.trial}" + ("" if self.trials is None else f" of {self.trials}"))
        if self.attempts:
            parts.append(f"{self.demos} demos of {self.attempts} attempts")
        if self.best is not None:
            parts.append(f"best {self.best:g}")
        parts.append(f"{self.requests:,} requests")
        parts.append(f"{self.tokens:,} tokens")
        if self.cost is not None:
            parts.append(f"{self.cost:.4f} USD")
        parts.append(f"{span(self.elapsed)} so far")
        if self.eta is not None:
            parts.append(f"about {span(self.eta)} left")
        if self.waiting_s >= 5.0:
            parts.append(f"{self.waiting} requests wait, one for {span(self.waiting_s)}")
        return ", ".join(parts)


class ProgressTracker:
    """Makes a job's `JobProgress` of what its workers report. `now` is on the clock of `began`."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._told = JobProgress()
        self._fraction: float | None = None
        self._since: float | None = None  # when the optimizer itself began

    def take(self, report: Mapping[str, Any], now: float) -> None:
        """Take a report of a worker."""
        stage = str(report.get("stage", ""))
        if stage not in ("start", "baseline") and self._since is None:
            self._since = now
        attempts: Mapping[str, Any] = report.get("attempts") or {}
        self._fraction = report.get("fraction")
        self._told = replace(
            self._told,
            stage=stage,
            trial=int(report.get("trial") or 0),
            trials=report.get("trials"),
            best=report.get("best"),
            examples=int(report.get("examples") or 0),
            attempts=int(attempts.get("done", 0)),
            demos=int(attempts.get("taken", 0)),
            waiting=int(report.get("waiting") or 0),
            waiting_s=float(report.get("longest_s") or 0.0),
        )

    def scored_baseline(self, score: float) -> None:
        """Note the score of the program as it was given."""
        self._told = replace(self._told, baseline=score)

    def replaced(self, workers: int) -> None:
        """Note that another worker goes on."""
        self._since = None
        self._told = replace(self._told, workers=workers)

    def at(self, now: float, spent: Mapping[str, Any], *, is_over: bool) -> JobProgress:
        """Return the progress now; `spent` is of the job's account."""
        priced = spent["requests"] - spent["unpriced_requests"]
        return replace(
            self._told,
            stage="" if is_over else self._told.stage,
            requests=spent["requests"],
            cached_requests=spent["cached_requests"],
            tokens=spent["tokens"],
            cost=spent["cost_usd"] if priced else None,
            elapsed=now - self._began,
            eta=None if is_over else self._eta(now),
        )

    def _eta(self, now: float) -> float | None:
        if self._since is None or not self._fraction:
            return None
        return (now - self._since) * (1 - self._fraction) / self._fraction


def span(seconds: float) -> str:
    """Return a span for people."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
