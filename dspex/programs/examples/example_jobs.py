"""Prepare and follow a job over many examples, for `optimize`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ...adapters.plain_data import is_plain
from ...errors import InvalidInput
from ...signatures.signature import Signature
from ...types.dspy_objects import value_here

Progress = Callable[[dict[str, Any]], object]


@dataclass(frozen=True, slots=True)
class SplitExamples:
    """Examples for a worker: fields that are plain data, and those that cross as Python objects, row by row."""

    plain: list[dict[str, Any]]
    objects: list[dict[str, Any]]

    @classmethod
    def of(cls, rows: Iterable[Any]) -> SplitExamples:
        """Return the examples.

        Raises:
            InvalidInput: one is no mapping.
        """
        whole = [value_here(_fields(row)) for row in rows]
        plain = [{name: value for name, value in row.items() if is_plain(value)} for row in whole]
        objects = [{name: value for name, value in row.items() if not is_plain(value)} for row in whole]
        return cls(plain, objects)

    @property
    def are_plain(self) -> bool:
        """Whether nothing crosses as an object."""
        return not any(self.objects)


def require_inputs(rows: Iterable[Any], sig: Signature) -> None:
    """Check that examples have the inputs of a signature that have no default.

    Raises:
        InvalidInput: one lacks an input.
    """
    needed = [name for name, field in sig.input_fields.items() if not field.has_default]
    for row in rows:
        given = _fields(row)
        if missing := [name for name in needed if name not in given]:
            raise InvalidInput(
                f"An example lacks the input {missing[0]!r}; it has {', '.join(given)}.", field=missing[0]
            )


def _fields(row: Any) -> dict[str, Any]:
    if not hasattr(row, "items"):  # a dspy.Example is no Mapping, and has all of one
        raise InvalidInput(f"An example is a mapping of field names to values, not a {type(row).__name__}.")
    return dict(row.items())
