"""Tell every candidate that an optimizer evaluated: its state, its score, the score of each example, on which set.

A candidate is *full* if it was scored on every example of the validation set (or of the training set, for optimizers
that score there), else a *minibatch*. Methods run on the optimizer's threads.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Sequence
from typing import Any

import dspy
from dspy.utils.callback import BaseCallback

from ..dspy_errors import is_out_of_memory
from ..metrics.metric_scores import ROW, score_of
from ..modules.module_state import dump_state
from .progress import Progress

VALIDATION, TRAINING = "val", "train"


class CandidateReports:
    """The candidates of one job, in order; each state is sent once."""

    def __init__(self, progress: Progress, trainset: Sequence[Any], valset: Sequence[Any]) -> None:
        self._progress = progress
        self._sets = {VALIDATION: rows_of(valset), TRAINING: rows_of(trainset)}
        self._sent: set[str] = set()
        self._lock = threading.Lock()

    def kind_of(self, devset: Sequence[Any], declared: str = "") -> tuple[str, str]:
        """Return the kind of an evaluation and the set that it is on; "eval_full" is declared by the optimizer."""
        rows = set(rows_of(devset))
        for name, every in self._sets.items():
            if rows.issuperset(every):
                return "full", name
        inside = next((name for name, every in self._sets.items() if rows.issubset(every)), "")
        is_full = declared == "eval_full" and inside == VALIDATION  # MIPROv2 draws a validation set of its own
        return ("full" if is_full else "minibatch"), inside

    def report(
        self,
        program: dspy.Module,
        kind: str,
        of_set: str,
        devset: Sequence[Any],
        scores: Sequence[float],
        *,
        score: float,
        began: float,
    ) -> None:
        """Report a candidate with its scores, in the order of `devset`; `score` is in percent."""
        digest, state = _described(program)
        candidate: dict[str, Any] = {
            "kind": kind,
            "set": of_set,
            "score": score,
            "scores": [float(each) for each in scores],
            "rows": [list(where) if where is not None else None for where in _places(devset)],
            "examples": len(devset),
            "seconds": round(time.monotonic() - began, 3),
            "digest": digest,
        }
        with self._lock:
            is_new = digest not in self._sent
            self._sent.add(digest)
        if is_new:
            candidate["state"] = state
        self._progress.evaluated(candidate)


class EvaluationCallbacks(BaseCallback):  # type: ignore[misc]
    """DSPy's callbacks: every evaluation is a candidate's; a MemoryError in any module ends the job."""

    def __init__(self, progress: Progress, reports: CandidateReports) -> None:
        self._progress = progress
        self._reports = reports
        self._open: dict[str, tuple[Any, Any, str, float]] = {}

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self._progress.check()
        declared = str((inputs.get("callback_metadata") or {}).get("metric_key") or "")
        devset = inputs.get("devset") or instance.devset
        self._open[call_id] = (inputs.get("program"), devset, declared, time.monotonic())

    def on_evaluate_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        program, devset, declared, began = self._open.pop(call_id, (None, (), "", 0.0))
        if exception is not None or outputs is None or program is None:
            return
        kind, of_set = self._reports.kind_of(devset, declared)
        scores = [_number(score) for _, _, score in outputs.results]
        self._reports.report(program, kind, of_set, devset, scores, score=float(outputs.score), began=began)

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self._progress.check()

    def on_module_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        if is_out_of_memory(exception):
            self._progress.stop(MemoryError("the worker ran out of memory while it optimized"))


def rows_of(examples: Sequence[Any]) -> frozenset[Any]:
    """Return what tells these examples apart: their place among the host's, else what they hold."""
    return frozenset(
        where if where is not None else repr(example)
        for where, example in zip(_places(examples), examples, strict=True)
    )


def _places(examples: Sequence[Any]) -> list[tuple[str, int] | None]:
    return [getattr(example, ROW, None) for example in examples]


def _described(program: dspy.Module) -> tuple[str, dict[str, Any] | None]:
    """Return a digest of the program's state, and the state; None for one that cannot be said in plain data."""
    try:
        state = dump_state(program)
        text = json.dumps(state, sort_keys=True)
    except (TypeError, ValueError, AttributeError):
        return f"unknown:{id(program)}", None
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32], state


def _number(score: Any) -> float:
    try:
        return score_of(score)
    except Exception:  # what a failed example has for a score is the optimizer's
        return 0.0
