"""The commonest of several answers, as `dspy.majority` counts them. Pure."""

from __future__ import annotations

import json
import re
import string
import unicodedata
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Final

from ...errors import InvalidInput
from ...types.prediction import Prediction

Normalize = Callable[[Any], "Hashable | None"]

_PUNCTUATION: Final = str.maketrans("", "", string.punctuation)
_ARTICLES: Final = re.compile(r"\b(a|an|the)\b")


def majority_of(
    predictions: Prediction | Sequence[Prediction | Mapping[str, Any]],
    *,
    field: str | None = None,
    normalize: Normalize | None = None,
) -> Prediction:
    """The first of the completions whose `field` (default: the last output) has the commonest value.

    Values are compared by `normalize` (default: text in lower case without accents' composition, punctuation and
    English articles, as in `dspy.majority`; other values as they are); values that it makes None do not vote, unless
    all are. The earlier wins a tie.
    """
    candidates = predictions.completions if isinstance(predictions, Prediction) else predictions
    if not isinstance(candidates, Sequence):
        raise InvalidInput(f"A majority is one of predictions, not {predictions!r}.", field="predictions")
    if not candidates:
        raise InvalidInput("A majority needs at least one prediction.", field="predictions")
    name = field or list(candidates[0].keys())[-1]
    votes = [(normalize or normalized)(candidate[name]) for candidate in candidates]
    counts: dict[Hashable, int] = {}
    for vote in [vote for vote in votes if vote is not None] or votes:
        counts[vote] = counts.get(vote, 0) + 1
    winner = max(counts, key=lambda vote: counts[vote])  # the first of equals, as dicts keep their order
    chosen = candidates[votes.index(winner)]
    return chosen if isinstance(chosen, Prediction) else _alone(predictions, chosen)


def normalized(value: Any) -> Hashable | None:
    """The text as `dspy.majority` compares it, None for nothing; of other values what is equal for equal ones."""
    if not isinstance(value, str):
        return value if isinstance(value, Hashable) else json.dumps(value, sort_keys=True, default=repr)
    text = unicodedata.normalize("NFD", value).lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split()) or None


def _alone(source: Any, values: Mapping[str, Any]) -> Prediction:
    if not isinstance(source, Prediction):
        return Prediction(values)
    return Prediction(values, usage=source.usage, cached=source.cached, cost_usd=source.cost_usd, route=source.route)
