"""`ReportSource`: all that a report is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..scores.program_comparison import ProgramComparison
from .job_facts import JobFacts
from .trial_history import Trial

Scores = Mapping[tuple[str, int], float]


@dataclass(frozen=True)
class ReportSource:
    """An optimization as its report shows it. `found` is the trial of the program that it came to."""

    title: str
    optimizer: str
    verdict: str
    is_worse: bool
    baseline_score: float | None
    found_score: float | None
    trials: Sequence[Trial]
    found: Trial | None
    facts: JobFacts
    test: ProgramComparison | None = None
    needs: Sequence[str] = ()  # arguments of `load` beside the path
    versions: Mapping[str, Any] = field(default_factory=dict)

    @property
    def baseline(self) -> Trial | None:
        """The trial of the program as it was given."""
        return next((trial for trial in self.trials if trial.get("kind") == "baseline"), None)

    @property
    def paired_scores(self) -> list[tuple[tuple[str, int], float, float]]:
        """The scores of baseline and found on the examples that both were scored on, by example."""
        before, after = _scores(self.baseline), _scores(self.found)
        return [(row, score, after[row]) for row, score in before.items() if row in after]


def _scores(trial: Trial | None) -> Scores:
    rows, scores = (trial or {}).get("rows") or (), (trial or {}).get("scores") or ()
    return {(str(row[0]), int(row[1])): score for row, score in zip(rows, scores, strict=False) if row is not None}
