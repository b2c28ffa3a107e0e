"""What a metric of this process gets for a job: its very examples, and values of its signature's types."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..adapters.validation import added_outputs, checked_inputs
from ..errors import AdapterParseError, EncodeError, InvalidInput
from ..types.example import Example
from ..types.prediction import Prediction
from ..types.traced_predictor import TracedPredictor

if TYPE_CHECKING:
    from ..signatures.signature import Signature


@dataclass(frozen=True, slots=True)
class MetricJob:
    """What a metric's arguments are made of: the job's examples, as they were given, and the types of its values."""

    examples: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # "train" and "val"
    signature: Signature | None = None  # of the program's answers; None: nothing is known of their types
    typed: Callable[[Mapping[str, Any], Mapping[str, Any] | None], dict[str, Any]] | None = None
    packages: Collection[str] = ()  # whose classes, where they are loaded here, other outputs may be of
    is_reward: bool = False
    limit_s: float = math.inf  # of each call

    def example(self, arguments: Mapping[str, Any]) -> Any:
        """Return the example that a worker names, else one of the fields that it sent."""
        where = arguments.get("row")
        if isinstance(where, list) and len(where) == 2 and isinstance(where[1], int):
            rows = self.examples.get(where[0], ())
            if 0 <= where[1] < len(rows):
                return rows[where[1]]
        given, objects = arguments.get("example"), arguments.get("example_objects")
        values = dict(given) if isinstance(given, Mapping) else {}
        if self.packages and isinstance(objects, Mapping):  # of no signature, which would type them
            with contextlib.suppress(AdapterParseError):
                values |= added_outputs({name: values.get(name) for name in objects}, objects, self.packages)
        return Example(values, arguments.get("inputs"))

    def prediction(
        self, outputs: Mapping[str, Any], objects: Mapping[str, Any] | None = None, **facts: Any
    ) -> Prediction:
        """Return outputs as the program's prediction; `objects` are the exact forms of what is not plain data.

        `facts` are what else a `Prediction` says.
        """
        return Prediction(outputs if self.typed is None else self.typed(outputs, objects or {}), **facts)

    def trace(self, steps: Any) -> list[tuple[TracedPredictor, dict[str, Any], Prediction]] | None:
        """Return the steps as DSPy's tuples: the predictor, its inputs and its outputs."""
        return None if steps is None else [self._step(*step) for step in steps]

    def _step(
        self, about: Any, inputs: Any, outputs: Any, forms: Any
    ) -> tuple[TracedPredictor, dict[str, Any], Prediction]:
        predictor, (given, made) = TracedPredictor.of(about), forms
        known = self.signature
        if known is not None and predictor.signature.output_fields.keys() != known.output_fields.keys():
            known = None  # another predictor's, of whose types nothing is known here
        taken = added_outputs(inputs, given, self.packages)
        with contextlib.suppress(InvalidInput, EncodeError):  # tools, and fields that are only called the same
            taken = taken if known is None else checked_inputs(known, taken, allow_markers=True)
        if known is not None:
            with contextlib.suppress(AdapterParseError):
                return predictor, taken, self.prediction(outputs, made)
        return predictor, taken, Prediction(added_outputs(outputs, made, self.packages))
