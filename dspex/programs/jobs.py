"""Prepare and follow a job over many examples, for `optimize` and `evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..adapters.plain_data import to_wire
from ..errors import InvalidInput
from ..signatures.signature import Signature
from .optimized import Optimized
from .program import Program

Progress = Callable[[dict[str, Any]], object]


def program_of(given: Any, job: str) -> Program:
    """Return the program that was given, or the one in an `Optimized`.

    Raises:
        InvalidInput: it is none.
    """
    program = given.program if isinstance(given, Optimized) else given
    if not isinstance(program, Program):
        raise InvalidInput(
            f"{job} needs a program, such as dspex.predictor('predict', 'question -> answer'), not {given!r}.",
            field="program",
        )
    return program


def wire_examples(rows: Any, sig: Signature, name: str) -> list[dict[str, Any]]:
    """Return the examples as plain data.

    Raises:
        InvalidInput: they are no list of mappings, or one lacks an input of the signature.
    """
    if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable):
        raise InvalidInput(f"{name} is a list of examples, not a {type(rows).__name__}.", field=name)
    return [_wire_example(row, sig) for row in rows]


def input_names(inputs: Sequence[str] | None, program: Program) -> list[str]:
    """Return the names of the examples' inputs: those given, else the program's.

    Raises:
        InvalidInput: they are no list of names.
    """
    names = list(inputs) if isinstance(inputs, Iterable) and not isinstance(inputs, str) else inputs
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise InvalidInput(f"inputs is {inputs!r}; it is a list of field names.", field="inputs")
    return list(names or program.inputs)


def followed(stream: Any, on_progress: Progress | None) -> tuple[Any, str]:
    """Report the job's progress until it ends; return its value and the worker that gave it."""
    with stream:
        for report in stream:
            if on_progress is not None:
                on_progress(report)
        return stream.value, stream.worker


def _wire_example(row: Any, sig: Signature) -> dict[str, Any]:
    if not hasattr(row, "items"):  # a dspy.Example is no Mapping, and has all of one
        raise InvalidInput(f"An example is a mapping of field names to values, not a {type(row).__name__}.")
    missing = [name for name, f in sig.input_fields.items() if name not in row and not f.has_default]
    if missing:
        raise InvalidInput(f"An example lacks the input {missing[0]!r}; it has {', '.join(row)}.", field=missing[0])
    return {name: to_wire(value, f"example[{name!r}]") for name, value in row.items()}
