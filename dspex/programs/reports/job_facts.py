"""`JobFacts`: what a report says of an optimization beside its candidates: options, examples, what was spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_SHOWN = (str, int, float, bool, type(None))


@dataclass(frozen=True, slots=True)
class JobFacts:
    """An optimization's id, its state when the program was taken from it, its metric and options, and what it spent.

    `cost_usd` is None where no request had a known price. `examples` are those that it was given: "train" and "val".
    """

    id: str = ""
    state: str = ""
    metric: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    requests: int = 0
    cached_requests: int = 0
    tokens: int = 0
    cost_usd: float | None = None
    seconds: float = 0.0
    inputs: Sequence[str] = ()
    examples: Mapping[str, Sequence[Any]] = field(default_factory=dict, repr=False)

    def example(self, row: Sequence[Any] | None) -> Mapping[str, Any]:
        """Return the fields of the example that a candidate's row names; nothing if it is not known."""
        if row is None:
            return {}
        rows = self.examples.get(row[0], ())
        return dict(rows[row[1]].items()) if 0 <= row[1] < len(rows) else {}


def shown_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as a report shows them: of what is no plain value, its kind alone."""
    return {
        name: value if isinstance(value, _SHOWN) else f"a {type(value).__name__}" for name, value in options.items()
    }
