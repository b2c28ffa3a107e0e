"""`Chunk`: a piece of a streamed prediction."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of one output field; the pieces of a text field of one predictor, joined, are its value.

    `predictor` is the name of the predictor that the field is of, as DSPy's `named_predictors()` has it ("self" for
    `predict`, "predict" for `chain_of_thought`, "hop.predict" for one inside a module). A module's predictors may have
    fields of the same name, and may answer at the same time.
    """

    field: str
    text: str
    predictor: str = ""
