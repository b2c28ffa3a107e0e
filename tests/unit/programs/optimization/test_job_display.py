"""Unit: what people see of a job: the estimate, the line, the bar."""

from __future__ import annotations

import io
from typing import Any

import pytest

from dspex.programs.optimization import job_display
from dspex.programs.optimization.job_display import BarDisplay, LineDisplay, display_of
from dspex.programs.optimization.job_events import JobEvent, JobEventKind
from dspex.programs.optimization.job_progress import JobProgress, ProgressTracker, span

SPENT = {"requests": 12, "cached_requests": 1, "unpriced_requests": 0, "tokens": 3456, "cost_usd": 0.5}


def event(kind: JobEventKind, **facts: Any) -> JobEvent:
    return JobEvent(0, kind, 0.0, facts)


def test_the_estimate_counts_from_where_the_optimizer_began() -> None:
    """unit: not from the queue, nor the baseline; a worker that was replaced begins it anew."""
    tracker = ProgressTracker(began=0.0)
    tracker.take({"stage": "baseline", "fraction": None}, now=50.0)
    assert tracker.at(60.0, SPENT, is_over=False).eta is None
    tracker.take({"stage": "search", "trial": 1, "trials": 4, "fraction": 0.0}, now=100.0)
    tracker.take({"stage": "search", "trial": 1, "trials": 4, "fraction": 0.25}, now=110.0)
    found = tracker.at(110.0, SPENT, is_over=False)
    assert (found.eta, found.elapsed, found.trial, found.trials, found.cost) == (30.0, 110.0, 1, 4, 0.5)
    tracker.replaced(2)
    tracker.take({"stage": "search", "trial": 0, "trials": 4, "fraction": 0.0}, now=120.0)
    tracker.take({"stage": "search", "trial": 2, "trials": 4, "fraction": 0.5}, now=125.0)
    assert tracker.at(125.0, SPENT, is_over=False).eta == 5.0 and tracker.at(125.0, SPENT, is_over=True).eta is None


def test_the_cost_is_unknown_where_no_price_is() -> None:
    """unit: never 0.0000 USD for requests without a price."""
    tracker = ProgressTracker(began=0.0)
    assert tracker.at(1.0, SPENT | {"unpriced_requests": 12, "cost_usd": 0.0}, is_over=False).cost is None
    assert tracker.at(1.0, SPENT | {"unpriced_requests": 2}, is_over=False).cost == 0.5


def test_the_line_says_what_is_known() -> None:
    """unit"""
    progress = JobProgress("search", 3, 10, 75.0, requests=1234, tokens=5, cost=0.1, elapsed=61.0, eta=5000.0)
    assert progress.line() == (
        "search, candidate 3 of 10, best 75, 1,234 requests, 5 tokens, 0.1000 USD, 1 min 1 s so far, "
        "about 1 h 23 min left"
    )
    waiting = JobProgress("baseline", waiting=2, waiting_s=190.0, elapsed=190.0).line()
    assert waiting == "baseline, 0 requests, 0 tokens, 3 min 10 s so far, 2 requests wait, one for 3 min 10 s"
    assert [span(seconds) for seconds in (0.4, 59.4, 60, 3599, 3600)] == [
        "0 s",
        "59 s",
        "1 min 0 s",
        "59 min 59 s",
        "1 h 0 min",
    ]


def test_lines_come_with_news_and_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: not with every count; a message's first line alone."""
    now = [100.0]
    monkeypatch.setattr(job_display.time, "monotonic", lambda: now[0])
    lines: list[str] = []
    display = LineDisplay("t", lines.append)
    for kind in ("stage", "progress", "progress", "candidate", "message"):
        display.show(event(kind, message="x"), JobProgress("search"))
    assert len(lines) == 2
    now[0] += job_display.QUIET_S
    display.show(event("heartbeat"), JobProgress("search"))
    display.show(event("warning", message="went wrong\nat length"), JobProgress("search"))
    display.show(event("failed", message="because"), JobProgress(""))
    assert (
        len(lines) == 5 and lines[3] == "t: warning: went wrong" and lines[4].startswith("t: failed (because); ended")
    )


def test_the_bar_is_tqdms(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: its length is what is planned, once that is known; it closes at the end."""
    tqdm = pytest.importorskip("tqdm")
    out = io.StringIO()
    monkeypatch.setattr(job_display.sys, "stderr", out)
    display = BarDisplay("dspex gepa", tqdm.tqdm)
    display.show(event("queued"), JobProgress())
    display.show(event("candidate"), JobProgress("search", 2, 4, 75.0))
    display.show(event("warning", message="careful"), JobProgress("search", 2, 4, 75.0))
    display.show(event("done"), JobProgress("", 4, 4, 75.0))
    shown = out.getvalue()
    assert "2/4" in shown and "4/4" in shown and "best 75" in shown and "warning: careful" in shown and "done" in shown


def test_terminals_get_a_bar_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: lines without tqdm, and where stderr is no terminal."""
    monkeypatch.setattr(job_display, "_is_terminal", lambda: True)
    assert isinstance(display_of("t"), BarDisplay)
    monkeypatch.setattr(job_display.importlib.util, "find_spec", lambda name: None)
    assert isinstance(display_of("t"), LineDisplay)
    monkeypatch.undo()
    assert isinstance(display_of("t"), LineDisplay)
