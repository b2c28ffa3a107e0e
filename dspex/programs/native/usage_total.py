"""`UsageTotal`: the summed usage of one prediction's requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...adapters.reply_reader import ReadableCompletion
from ...types.prediction import Prediction


@dataclass(slots=True)
class UsageTotal:
    """Usage by model, cost in USD (None when a price is unknown), and whether the cache answered every request."""

    usage: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    is_cached: bool = True
    cost: float | None = 0.0

    def add(self, model: str, completion: ReadableCompletion) -> None:
        """Add one request's completion; of a cached one only that it was cached."""
        self.is_cached = self.is_cached and completion.cached
        self.cost = None if self.cost is None or completion.cost is None else self.cost + completion.cost
        if completion.cached:
            return
        known = self.usage.get(model)
        self.usage[model] = dict(completion.usage) if known is None else _sum(known, completion.usage)

    def add_prediction(self, made: Prediction) -> None:
        """Add what another prediction took."""
        self.is_cached = self.is_cached and made.cached
        self.cost = None if self.cost is None or made.cost_usd is None else self.cost + made.cost_usd
        for model, used in made.usage.items():
            known = self.usage.get(model)
            self.usage[model] = dict(used) if known is None else _sum(known, used)


def _sum(total: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return both usages together: numbers are added, also in the nested details; what is no number is kept."""
    made = dict(total)
    for name, value in more.items():
        known = made.get(name)
        if isinstance(value, Mapping):
            made[name] = _sum(known or {}, value)
        elif isinstance(value, int | float) and isinstance(known, int | float):
            made[name] = known + value
        elif value is not None or known is None:
            made[name] = value
    return made
