"""`Chunk`: a piece of a streamed prediction."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of one output field; the pieces of a text field, joined, are its value."""

    field: str
    text: str
