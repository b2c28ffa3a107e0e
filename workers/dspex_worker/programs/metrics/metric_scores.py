"""Read what a metric gave: a number, or a score with feedback. Any thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import dspy

from ...failure import Failure
from ...user_calls import Mismatch, feedback_in, score_in
from ..dspy_errors import invalid_input

Metric = Callable[..., Any]
ROW = "_dspex_row"  # of an example: (its list, its place there), by which the parent finds the very one it was given


class BadMetric(Failure):
    """A metric that can score no example, whatever the program answers: it ends the job at the first one."""


def title_of(spec: Mapping[str, Any]) -> str:
    """Return what a metric is called in messages."""
    return str(spec.get("title") or spec.get("import") or spec.get("name") or "the host's")


def score_of(value: Any, title: str = "") -> float:
    """Return a metric's result as a number; GEPA's metrics give an object with a score and feedback.

    Raises:
        Failure: InvalidInput, when it is none, or not finite.
    """
    try:
        return float(score_in(value, f"metric {title}".strip()))
    except Mismatch as error:
        raise invalid_input(str(error), "metric") from error


class Score(dspy.Prediction):  # type: ignore[misc]
    """A score with feedback and the like, as GEPA's metrics give it; false if its score is.

    DSPy's BootstrapFewShot asks for the truth of what a metric gave, and a Prediction with a score of 0 is true.
    """

    def __bool__(self) -> bool:
        return bool(self.score)


def comparable(value: Any, title: str = "") -> Any:
    """Return a metric's result as DSPy's optimizers can use it: a number, or a `Score`, of whatever it gave.

    Raises:
        Failure: InvalidInput, when it is no score.
    """
    try:
        score = score_in(value, f"metric {title}".strip())
    except Mismatch as error:
        raise invalid_input(str(error), "metric") from error
    if isinstance(value, Mapping | dspy.Example):
        return Score(**{**dict(value.items()), "score": score})
    if hasattr(value, "score"):
        feedback = feedback_in(value)
        return Score(score=score, **({} if feedback is None else {"feedback": feedback}))
    return score
