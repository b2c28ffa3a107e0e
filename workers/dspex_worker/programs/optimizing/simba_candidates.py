"""Put together what SIMBA runs, example by example, to evaluations of its candidates.

SIMBA has no Evaluate: it runs (program, example) pairs in threads. It wraps every pair of a round before it runs the
first, so an evaluation is whole once all that was wrapped for a program has run. Which round it is, its log says.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import dspy

from ..evaluating.scored_rows import percent
from .candidate_reports import CandidateReports


@dataclass
class _Evaluation:
    """The runs of one candidate in one round."""

    program: dspy.Module
    began: float = field(default_factory=time.monotonic)
    wrapped: int = 0
    done: dict[int, tuple[Any, float]] = field(default_factory=dict)  # by place: a slow run may be run twice


class SimbaCandidates:
    """The evaluations of the round that runs."""

    def __init__(self, reports: CandidateReports) -> None:
        self._reports = reports
        self._lock = threading.Lock()
        self._open: dict[int, _Evaluation] = {}
        self._evaluates = False

    def enter(self, *, evaluates: bool) -> None:
        """Begin a round: one that evaluates candidates, or one that samples what programs do."""
        with self._lock:
            self._evaluates = evaluates
            self._open.clear()

    def watched(self, program: dspy.Module, run: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return `run`, which SIMBA calls with one example, with its score noted for the candidate."""
        with self._lock:
            if not self._evaluates:
                return run
            evaluation = self._open.setdefault(id(program), _Evaluation(program))
            place = evaluation.wrapped
            evaluation.wrapped += 1

        def running(example: Any) -> Any:
            found = run(example)
            self._ended(evaluation, place, example, float(found["score"]))
            return found

        return running

    def _ended(self, evaluation: _Evaluation, place: int, example: Any, score: float) -> None:
        with self._lock:
            is_last = place not in evaluation.done and len(evaluation.done) + 1 == evaluation.wrapped
            evaluation.done[place] = (example, score)
        if is_last:
            examples = [evaluation.done[at][0] for at in range(evaluation.wrapped)]
            scores = [evaluation.done[at][1] for at in range(evaluation.wrapped)]
            kind, of_set = self._reports.kind_of(examples)
            whole = percent(sum(scores), len(scores))
            self._reports.report(
                evaluation.program, kind, of_set, examples, scores, score=whole, began=evaluation.began
            )
