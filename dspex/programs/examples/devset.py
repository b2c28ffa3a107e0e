"""Prepare the examples of an evaluation: what the metric gets of each, and what goes into the program."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import InvalidInput
from ...types.example import Example


@dataclass(frozen=True, slots=True)
class DevsetRow:
    """One example as the metric gets it, which is the one that was given if it is DSPy's, and the program's inputs."""

    example: Any
    inputs: Mapping[str, Any]


def devset_rows(devset: Any, names: Sequence[str] | None, known: Sequence[str] | None) -> list[DevsetRow]:
    """Return the rows; their inputs are `names`, else those that an example declares, else the `known` ones it has.

    Raises:
        InvalidInput: it is no list of examples, it is empty, or nothing says which fields go in.
    """
    if isinstance(devset, str | bytes | Mapping) or not isinstance(devset, Iterable):
        raise InvalidInput(f"devset is a list of examples, not a {type(devset).__name__}.", field="devset")
    rows = [_row(at, given, names, known) for at, given in enumerate(devset)]
    if not rows:
        raise InvalidInput("devset is empty: an evaluation needs at least one example.", field="devset")
    return rows


def input_names(inputs: Any) -> list[str] | None:
    """Return the names that were given.

    Raises:
        InvalidInput: they are no list of names.
    """
    if inputs is None:
        return None
    names = list(inputs) if isinstance(inputs, Iterable) and not isinstance(inputs, str | bytes) else None
    if names is None or not all(isinstance(name, str) for name in names):
        raise InvalidInput(f"inputs is {inputs!r}; it is a list of field names.", field="inputs")
    return names


def declared_inputs(example: Any) -> list[str] | None:
    """Return what an example's `with_inputs` named, in the fields' order."""
    keys = getattr(example, "_input_keys", None)
    return None if keys is None else [name for name in example.keys() if name in keys]  # noqa: SIM118 - no Mapping


def as_example(given: Any, names: Sequence[str]) -> Any:
    """Return the example as a metric gets it: DSPy's own as it is, with its inputs declared; else an `Example`."""
    if callable(getattr(given, "with_inputs", None)):
        return given if declared_inputs(given) is not None else given.with_inputs(*names)
    if isinstance(given, Example) and declared_inputs(given) is not None:
        return given
    return Example(dict(given.items()), names)


def _row(at: int, given: Any, names: Sequence[str] | None, known: Sequence[str] | None) -> DevsetRow:
    if not hasattr(given, "items"):  # a dspy.Example is no Mapping, and has all of one
        raise InvalidInput(
            f"devset[{at}] is a {type(given).__name__}; an example is a mapping of field names to values.",
            field="devset",
        )
    fields = dict(given.items())
    chosen = names if names is not None else declared_inputs(given)
    if chosen is None and known is not None:
        chosen = [name for name in known if name in fields]
    if chosen is None:
        raise InvalidInput(
            f"Nothing says which fields of devset[{at}] ({', '.join(map(str, fields))}) go into the program: name them "
            f"with inputs=[...], or give examples with `with_inputs`.",
            field="inputs",
        )
    if missing := [name for name in chosen if name not in fields]:
        raise InvalidInput(
            f"devset[{at}] lacks the input {missing[0]!r}; it has {', '.join(map(str, fields))}.", field=missing[0]
        )
    return DevsetRow(as_example(given, chosen), {name: fields[name] for name in chosen})
