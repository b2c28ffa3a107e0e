"""Write the report of a job from its journal alone: it may run in another process, or have ended in one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import JournalError, ProtocolError
from ..reports.job_facts import JobFacts
from ..reports.report_page import report_page
from ..reports.report_source import ReportSource
from ..scores.score_verdict import score_verdict
from .cancel_request import job_journal
from .journal_summary import JournalSummary, records_of, summary_of
from .scored_candidate import ScoredCandidate, best_candidate, trials_of


def job_report(
    journal: str | os.PathLike[str], to: str | os.PathLike[str], *, folder: str | os.PathLike[str] | None = None
) -> None:
    """Write the report of a job from its journal: one HTML page, as `Optimized.report` writes it.

    `journal` is the file's path; with `folder` also the job's id, or the beginning of it. The job may be running: the
    page tells what there is so far. What no journal holds is not on it: the comparison on held-out examples, and
    examples that are no plain data.

    Raises:
        UnknownName, JournalError: there is no such job, or its journal cannot be read.
    """
    path = job_journal(journal, folder)
    summary = summary_of(path)
    if summary.fault:
        raise JournalError(f"The journal {path} cannot be read. {summary.fault}", path=str(path), reason="damaged")
    page = report_page(_source(summary, _candidates(path)))
    Path(to).write_text(page, encoding="utf-8", errors="replace", newline="\n")


def _candidates(path: Path) -> list[ScoredCandidate]:
    states: dict[str, Mapping[str, Any]] = {}
    found: list[ScoredCandidate] = []
    for record in records_of(path):
        if record.get("kind") == "candidate":
            try:
                found.append(ScoredCandidate.of(record["candidate"], states))
            except ProtocolError as error:
                raise JournalError(str(error), path=str(path), reason="damaged") from error
        elif record.get("kind") == "diverged":
            del found[int(record["number"]) :]
    return found


def _source(summary: JournalSummary, candidates: list[ScoredCandidate]) -> ReportSource:
    about, end, trials = summary.about, summary.end or {}, trials_of(candidates)
    results = [one for one in candidates if one.kind == "result"]
    found = results[-1] if results else best_candidate(candidates)
    baseline = next((one.score for one in candidates if one.kind == "baseline"), None)
    score = None if found is None else found.score
    is_over = bool(results)
    return ReportSource(
        str(about.get("title") or ""),
        str(about.get("optimizer") or ""),
        score_verdict(score, baseline, kept_baseline=bool(end.get("kept_baseline")), is_over=is_over),
        is_over and score is not None and baseline is not None and score < baseline,
        baseline,
        score,
        trials,
        None if found is None else trials[candidates.index(found)],
        _facts(summary),
        needs=[f"tools=[{', '.join(map(str, about['tools']))}]"] if about.get("tools") else [],
        versions=about.get("versions") or {},
    )


def _facts(summary: JournalSummary) -> JobFacts:
    about, row, spent = summary.about, summary.row, summary.spent
    metric = about.get("metric") or {}
    title = next((str(metric[key]) for key in ("name", "import", "function") if metric.get(key)), "")
    return JobFacts(
        summary.id,
        summary.state,
        title,
        about.get("options") or about.get("given_options") or {},
        row["requests"],
        int(spent.get("cached_requests", 0)),
        row["tokens"],
        row["cost"],
        round(row["elapsed"] or 0.0, 3),
        about.get("inputs") or (),
        {"train": about.get("trainset") or (), "val": about.get("valset") or ()},
    )
