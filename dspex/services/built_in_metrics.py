"""The built-in metrics, in this process: DSPy's comparisons of texts (dspy/evaluate/metrics.py, 3.4.1), without DSPy.

`answer_passage_match` is not among them: DSPy's tokens of passages are only in DSPy, so workers score it. Pure.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from ..adapters.plain_data import to_wire
from ..errors import InvalidInput, UnknownName

Compare = Callable[[str, str], float]
BUILT_IN = ("exact_match", "f1", "contains", "answer_exact_match", "answer_passage_match")
IN_WORKERS = frozenset({"answer_passage_match"})
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(text: str) -> str:
    """Return the text as DSPy compares it: lower case, without punctuation, articles and double spaces."""
    plain = unicodedata.normalize("NFD", text).lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", plain).split())


def exact_match(predicted: str, expected: str) -> float:
    """Return 1.0 if both are the same, normalized."""
    return float(normalized(predicted) == normalized(expected))


def f1(predicted: str, expected: str) -> float:
    """Return the harmonic mean of the shares of words that one has of the other."""
    mine, theirs = normalized(predicted).split(), normalized(expected).split()
    shared = sum((Counter(mine) & Counter(theirs)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(mine), shared / len(theirs)
    return 2 * precision * recall / (precision + recall)


def contains(predicted: str, expected: str) -> float:
    """Return 1.0 if the expected text is in the predicted one, both normalized."""
    return float(normalized(expected) in normalized(predicted))


_COMPARISONS: Mapping[str, Compare] = {"exact_match": exact_match, "f1": f1, "contains": contains}


def built_in(spec: Mapping[str, Any]) -> Callable[[Any, Any], float]:
    """Return the metric `(example, prediction) -> score` that {"name", "field"?} names.

    It compares the field, or every label of the example that the prediction has; the score is the mean.

    Raises:
        UnknownName: there is no such metric.
    """
    name = str(spec.get("name"))
    if name == "answer_exact_match":
        return _by_field(exact_match, "answer")
    if name not in _COMPARISONS:
        raise UnknownName("metric", name, BUILT_IN)
    field = spec.get("field")
    return _by_field(_COMPARISONS[name], None if field is None else str(field))


def _by_field(compare: Compare, field: str | None) -> Callable[[Any, Any], float]:
    def metric(example: Any, prediction: Any) -> float:
        names = [field] if field else [name for name in example.labels() if name in prediction]
        if not names:
            raise InvalidInput("The example and the prediction have no field in common to compare.")
        return sum(_compared(compare, prediction[name], example[name]) for name in names) / len(names)

    return metric


def _compared(compare: Compare, predicted: Any, expected: Any) -> float:
    predicted, expected = _plain(predicted), _plain(expected)
    if isinstance(expected, str) or isinstance(predicted, str):
        options = expected if isinstance(expected, list) else [expected]
        return max((compare(str(predicted), str(option)) for option in options), default=0.0)
    return float(predicted == expected)


def _plain(value: Any) -> Any:
    """Return the value as a worker would send it: of DSPy's code and reasoning, the text."""
    kind = getattr(type(value), "dspy_name", "")
    if kind == "dspy.Reasoning" or kind.startswith("dspy.Code"):
        return str(value.content if kind == "dspy.Reasoning" else value.code)
    return to_wire(value)
