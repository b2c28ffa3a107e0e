"""Compare several chains of thought and answer: `dspy.MultiChainComparison`, which takes them as `completions`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...adapters.plain_data import to_wire
from ...adapters.validation import CrossedInputs
from ...errors import InvalidInput
from ...types.prediction import S_co
from ..calling.program import Program

CHAINS_MOST = 3  # DSPy's M, where none is given
_FIELD = "completions"
_REASONINGS = ("rationale", "reasoning")


@dataclass(frozen=True)
class ChainComparison(Program[S_co]):
    """A program that takes M attempts beside its inputs: `completions=[{"reasoning": ..., "answer": ...}, ...]`.

    An attempt is a mapping or a prediction with the reasoning and the last output.
    """

    @property
    def inputs(self) -> tuple[str, ...]:
        return (*super().inputs, _FIELD)

    def crossed(self, inputs: Mapping[str, Any]) -> CrossedInputs:
        attempts = {_FIELD: self._attempts(inputs.get(_FIELD))}
        found = super().crossed({name: value for name, value in inputs.items() if name != _FIELD})
        return CrossedInputs(found.typed | attempts, found.plain | attempts, found.carried)

    def _attempts(self, given: Any) -> list[dict[str, Any]]:
        if isinstance(given, str | Mapping) or not isinstance(given, Sequence):
            last = repr(self.outputs[-1]) if self.outputs else "an output"
            raise InvalidInput(
                f"{self.module} compares attempts: give {_FIELD}=[...], a list of mappings or predictions, each with "
                f"'reasoning' and {last}.",
                field=_FIELD,
            )
        wanted = self.options.get("M", CHAINS_MOST)
        if len(given) != wanted:
            raise InvalidInput(f"{self.module} compares M={wanted} attempts, not {len(given)}.", field=_FIELD)
        return [self._attempt(each, at) for at, each in enumerate(given)]

    def _attempt(self, given: Any, at: int) -> dict[str, Any]:
        items = given.items() if hasattr(given, "items") else ()
        plain = {str(name): to_wire(value, f"{_FIELD}[{at}].{name}") for name, value in items}
        reasoning = next((plain[name] for name in _REASONINGS if isinstance(plain.get(name), str)), None)
        if reasoning is None or self.outputs[-1] not in plain:
            raise InvalidInput(
                f"{_FIELD}[{at}] has no text 'reasoning', or no {self.outputs[-1]!r}: it has "
                f"{', '.join(plain) or 'nothing'}.",
                field=_FIELD,
            )
        return plain
