"""Compare fields of an example and a prediction: the metrics that need no code of the user's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dspy.evaluate.metrics import EM, F1, answer_passage_match, normalize_text

from ..dspy_errors import invalid_input, unknown_name
from ..values.wire_values import to_wire
from .metric_scores import Metric

Compare = Callable[[str, str], float]
DEFAULT_THRESHOLD = 0.8  # from which partial score on an example counts as a success worth a demonstration


def _exact(predicted: str, expected: str) -> float:
    return float(EM(predicted, [expected]))


def _f1(predicted: str, expected: str) -> float:
    return float(F1(predicted, [expected]))


def _contains(predicted: str, expected: str) -> float:
    return float(normalize_text(expected) in normalize_text(predicted))


_COMPARISONS: dict[str, Compare] = {"exact_match": _exact, "f1": _f1, "contains": _contains}
BUILT_IN = (*_COMPARISONS, "answer_exact_match", "answer_passage_match")


def built_in(name: str, spec: Mapping[str, Any]) -> Metric:
    """Return the metric of that name, for the fields that `spec` names.

    Raises:
        Failure: UnknownName.
    """
    if name == "answer_passage_match":
        return lambda example, prediction, trace=None, *_: answer_passage_match(example, prediction, trace)
    if name == "answer_exact_match":
        return _by_field(_COMPARISONS["exact_match"], "answer", None)
    if name not in _COMPARISONS:
        raise unknown_name("metric", name, BUILT_IN)
    return _by_field(_COMPARISONS[name], spec.get("field"), spec.get("threshold"))


def _by_field(compare: Compare, field: str | None, threshold: float | None) -> Metric:
    """Compare one field, or every label of the example that the prediction has; the score is the mean."""
    enough = DEFAULT_THRESHOLD if threshold is None else threshold

    def metric(example: Any, prediction: Any, trace: Any = None, *_: Any) -> float | bool:
        names = [field] if field else [name for name in example.labels().keys() if name in prediction]  # noqa: SIM118
        if not names:
            raise invalid_input("The example and the prediction have no field in common to compare.")
        score = sum(_compare_values(compare, prediction[name], example[name]) for name in names) / len(names)
        # While demonstrations are collected DSPy takes any score but zero for a success.
        return score if trace is None else score >= enough

    return metric


def _compare_values(compare: Compare, predicted: Any, expected: Any) -> float:
    predicted, expected = to_wire(predicted), to_wire(expected)
    if isinstance(expected, str) or isinstance(predicted, str):
        options = expected if isinstance(expected, list) else [expected]
        return max((compare(str(predicted), str(option)) for option in options), default=0.0)
    return float(predicted == expected)
