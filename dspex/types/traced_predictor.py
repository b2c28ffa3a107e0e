"""`TracedPredictor`: a predictor in a trace, as a metric of the host sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class TracedSignature:
    """The signature of a predictor in a trace: its instructions, and its fields' descriptions by name."""

    instructions: str = ""
    input_fields: Mapping[str, str] = field(default_factory=dict)
    output_fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TracedPredictor:
    """A predictor that ran in a worker: its `name` in the program, its class's name, and its signature.

    `name` is that of DSPy's `named_predictors()`: "self" for a bare Predict, "generate.predict" in a module.
    """

    name: str
    module: str
    signature: TracedSignature

    @classmethod
    def of(cls, about: Any) -> TracedPredictor:
        """Return the predictor that a worker describes."""
        given = about if isinstance(about, Mapping) else {}
        signature = TracedSignature(
            str(given.get("instructions", "")), dict(given.get("inputs") or {}), dict(given.get("outputs") or {})
        )
        return cls(str(given.get("name", "")), str(given.get("module", "")), signature)

    def __str__(self) -> str:
        return self.name
