"""Prepare and follow a job over many examples, for `optimize`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dspex_worker.types.annotation_facts import is_rich

from ..adapters.plain_data import is_plain, to_wire
from ..errors import InvalidInput
from ..signatures.described_types import is_described
from ..signatures.signature import Signature
from ..types.dspy_objects import value_here

_PLAIN = (type(None), bool, int, float, str, bytes)
Progress = Callable[[dict[str, Any]], object]


def crossed_examples(rows: Iterable[Any], sig: Signature) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return each example's fields as plain data, and those that cross as Python objects.

    Raises:
        InvalidInput: one is no mapping, or lacks an input of the signature.
    """
    crossed = [_crossed_example(row, sig) for row in rows]
    return [plain for plain, _ in crossed], [objects for _, objects in crossed]


def plain_labels(rows: Iterable[Any], inputs: Sequence[str]) -> list[str]:
    """Return the labels that are plain data in every row: metrics get these as they are, whatever the signature says.

    Others (enums, models, dates) cross as plain data, and are given their types again.
    """
    fields = [dict(row.items()) for row in rows]
    names = dict.fromkeys(name for each in fields for name in each if name not in inputs)
    return [name for name in names if all(_is_plain(each[name]) for each in fields if name in each)]


def followed(stream: Any, on_progress: Progress | None) -> tuple[Any, str]:
    """Report the job's progress until it ends; return its value and the worker that gave it."""
    with stream:
        for report in stream:
            if on_progress is not None:
                on_progress(report)
        return stream.value, stream.worker


def _crossed_example(row: Any, sig: Signature) -> tuple[dict[str, Any], dict[str, Any]]:
    if not hasattr(row, "items"):  # a dspy.Example is no Mapping, and has all of one
        raise InvalidInput(f"An example is a mapping of field names to values, not a {type(row).__name__}.")
    missing = [name for name, f in sig.input_fields.items() if name not in row and not f.has_default]
    if missing:
        raise InvalidInput(f"An example lacks the input {missing[0]!r}; it has {', '.join(row)}.", field=missing[0])
    plain: dict[str, Any] = {}
    objects: dict[str, Any] = {}
    for name, value in value_here(dict(row.items())).items():
        if is_plain(value):
            plain[name] = value
        elif name in sig.fields and is_rich(kind := sig.fields[name].annotation) and is_described(kind):
            plain[name] = to_wire(value, f"example[{name!r}]")  # a worker gives it its type again
        else:
            objects[name] = value
    return plain, objects


def _is_plain(value: Any) -> bool:
    if type(value) is list:
        return all(map(_is_plain, value))
    if type(value) is dict:
        return all(map(_is_plain, value.values()))
    return type(value) in _PLAIN
