"""`majority`: the commonest of n answers to one question, counted as `dspy.majority` does.

In a worker DSPy asks and counts, unless what is compared is not text or is made by a function of the host's, which
DSPy's own cannot: then the answers come from the worker and are counted here, by the same rule.
"""

from __future__ import annotations

import json
import re
import string
import unicodedata
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from ...errors import InvalidInput, SettingsError, UnknownName
from ...types.prediction import Prediction, with_facts
from ..calling.program import Program
from .attempts import Attempt, Loop
from .strategy import RepeatingStrategy

if TYPE_CHECKING:
    from ...pools.supervising import MadeCall
    from ...types.prediction import Prediction


Normalize = Callable[[Any], "Hashable | None"]
_PUNCTUATION: Final = str.maketrans("", "", string.punctuation)
_ARTICLES: Final = re.compile(r"\b(a|an|the)\b")


@dataclass(frozen=True)
class Majority(RepeatingStrategy):
    """A program that takes the commonest of its answers; see `dspex.majority`."""

    n: int = 5
    field: str | None = None
    normalize: Normalize | None = None

    @classmethod
    def over(
        cls, inner: Program, *, n: int = 5, field: str | None = None, normalize: Normalize | None = None
    ) -> Majority:
        """Return the program over `inner`.

        Raises:
            InvalidInput, UnknownName: options that cannot be.
        """
        if n < 1:
            raise InvalidInput(f"At least one answer is needed, not {n}.", field="n")
        if inner.is_open:
            raise SettingsError(
                f"majority asks a model for n answers at once, and {inner!r} makes requests of its own: call it n "
                f"times, each under another rollout_id, and take dspex.majority_of(predictions).",
                key="module",
            )
        known = inner.answered.output_fields
        if field is not None and field not in known:
            raise UnknownName("output", field, known, where=repr(inner))
        return cls.made("dspy.majority", inner, n=n, field=field, normalize=normalize)

    def attempts(self, inputs: Mapping[str, Any]) -> Loop:
        prediction = yield Attempt(1)
        return majority_of(prediction, field=self._compared, normalize=self.normalize)

    @property
    def config_used(self) -> Mapping[str, Any]:
        return {**super().config_used, "n": self.n}

    @property
    def is_of_requests(self) -> bool:
        return self.normalize is None and self.inner.is_of_requests

    def to_wire(self) -> dict[str, Any]:
        return self.inner_wire(self.module, {"field": self._compared})

    def run_in_worker(self, inputs: Mapping[str, Any], **how: Any) -> tuple[Prediction, MadeCall | None]:
        if self._is_counted_here:
            return super().run_in_worker(inputs, **how)
        return Program.run_in_worker(self, inputs, **how)

    async def arun_in_worker(self, inputs: Mapping[str, Any], **how: Any) -> tuple[Prediction, MadeCall | None]:
        if self._is_counted_here:
            return await super().arun_in_worker(inputs, **how)
        return await Program.arun_in_worker(self, inputs, **how)

    @cached_property
    def _compared(self) -> str:
        return self.field or list(self.answered.output_fields)[-1]

    @property
    def _is_counted_here(self) -> bool:
        return self.normalize is not None or self.answered.output_fields[self._compared].annotation is not str


def majority_of(
    predictions: Prediction | Sequence[Prediction | Mapping[str, Any]],
    *,
    field: str | None = None,
    normalize: Normalize | None = None,
) -> Prediction:
    """Return the first of the completions whose `field` (default: the last output) has the commonest value.

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
    """Return the text as `dspy.majority` compares it, None for nothing; other values so that equal ones stay equal."""
    if not isinstance(value, str):
        return value if isinstance(value, Hashable) else json.dumps(value, sort_keys=True, default=repr)
    text = unicodedata.normalize("NFD", value).lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split()) or None


def _alone(source: Any, values: Mapping[str, Any]) -> Prediction:
    return with_facts(source, values, completions=()) if isinstance(source, Prediction) else Prediction(values)
