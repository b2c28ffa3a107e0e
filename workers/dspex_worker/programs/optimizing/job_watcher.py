"""`JobWatcher`: takes what DSPy's optimizers tell a job; see `watched_optimizers`. Any thread of the optimizer's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dspy

from ..optimizers.watched_optimizers import WATCHER
from .candidate_reports import CandidateReports, EvaluationCallbacks
from .progress import Progress
from .simba_candidates import SimbaCandidates


@dataclass(frozen=True)
class JobWatcher:
    """The progress and the candidates of one job."""

    progress: Progress
    reports: CandidateReports
    simba: SimbaCandidates

    @classmethod
    def of(cls, progress: Progress, trainset: Any, valset: Any) -> JobWatcher:
        """Return the watcher of a job over these examples."""
        reports = CandidateReports(progress, trainset, valset)
        return cls(progress, reports, SimbaCandidates(reports))

    def attempted(self, *, is_taken: bool) -> None:
        self.progress.attempted(is_taken=is_taken)

    def watched(self, program: dspy.Module, run: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return self.simba.watched(program, run)

    def dspy_settings(self) -> dict[str, Any]:
        """Return the settings under which an optimizer reports to this job."""
        callbacks = [*dspy.settings.get("callbacks", []), EvaluationCallbacks(self.progress, self.reports)]
        return {"callbacks": callbacks, WATCHER: self}
