"""Refuse text that would become something else in a prompt (RULES X2).

DSPy turns a marked text inside any user message into content blocks, so a document that holds the marker could make
the provider fetch a URL. Only values of DSPy's own types may put the marker there, wherever in a value they are. Field
headers inside a value pass, as in DSPy: documents may rightly contain them.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from ..errors import UnsafeInput
from ..signatures.field import Field
from ..types.dspy_objects import dspy_type_name
from ..types.markers import END, START
from .rendering import render

_HEADER: Final = re.compile(r"\[\[ ## \w+ ## \]\]")
_MARK: Final = START.encode()
_NUMBERS: Final = frozenset({type(None), bool, int, float})


def refuse_markers(fields: Mapping[str, Field], values: Mapping[str, Any]) -> None:
    """Check that every marker in the rendered values comes from a value of DSPy's own types.

    Raises:
        UnsafeInput: another text holds one; `field` names it.
    """
    for name, field in fields.items():
        if name in values and _is_smuggled(values[name], field.annotation):
            raise _unsafe("input", name)


def refuse_marked_input(name: str, value: Any, annotation: Any) -> None:
    """Check one input, before anything is made of it; of a conversation every turn.

    Raises:
        UnsafeInput: a text in it holds the marker.
    """
    kind = type(value)
    if kind is str:
        if START in value:
            raise _unsafe("input", name)
    elif kind in _NUMBERS:
        return
    elif dspy_type_name(kind) == "dspy.History":
        for turn in value.messages:
            for item in turn.values():
                refuse_marked_input(name, item, Any)
    elif _is_smuggled(value, annotation):
        raise _unsafe("input", name)


def refuse_marked_texts(values: Mapping[str, Any], *, but: Collection[str]) -> None:
    """Refuse a marker in any text outside the fields `but`: saved demos hold images as marked texts.

    Raises:
        UnsafeInput: one does; it names the field.
    """
    for name, value in values.items():
        if name not in but and _is_smuggled(value, Any):
            raise _unsafe("demos' field", name)


def suspected_fields(values: Mapping[str, Any]) -> list[str]:
    """Return the inputs whose text looks like a field header, which can pass for another field."""
    return [
        name for name, value in values.items() if isinstance(value, str) and "[[ ##" in value and _HEADER.search(value)
    ]


def _unsafe(what: str, name: str) -> UnsafeInput:
    return UnsafeInput(
        f"The {what} {name!r} holds DSPy's custom-type marker, which would become a content block "
        f"(a URL for the provider to fetch, for instance). Remove it, or pass allow_markers=True.",
        field=name,
    )


def _is_smuggled(value: Any, annotation: Any) -> bool:
    """Whether the value's text in a prompt holds a marker beside those of the blocks in it."""
    if _is_clean_data(value):  # the usual case is not rendered twice
        return False
    text = _rendered(value, annotation)
    if START not in text:
        return False
    for block in set(_blocks(value)):
        text = text.replace(json.dumps(block, ensure_ascii=False)[1:-1], "").replace(block, "")
    return START in text


def _is_clean_data(value: Any) -> bool:
    """Whether the value is plain data without a marker: the only data whose text is known without looking."""
    kind = type(value)
    if kind is str:
        return START not in value
    if kind in _NUMBERS:
        return True
    if kind is bytes:
        return _MARK not in value
    if kind is list:
        return all(map(_is_clean_data, value))
    return kind is dict and all(map(_is_clean_data, value)) and all(map(_is_clean_data, value.values()))


def _rendered(value: Any, annotation: Any) -> str:
    try:
        return render(value, annotation)
    except TypeError:  # a list in a text field, with items that are no text: refused elsewhere
        return render(value, Any)


def _blocks(value: Any) -> Iterator[str]:
    """Yield the marked text of every value of DSPy's types inside `value`, but of one that brings another marker."""
    kind = type(value)
    if kind is str or kind in _NUMBERS:
        return
    if dspy_type_name(kind) is not None and hasattr(value, "serialize_model"):
        own = value.serialize_model()
        if isinstance(own, str) and own.startswith(START) and own.endswith(END) and own.count(START) == 1:
            yield own
            return
    for part in _parts(value):
        yield from _blocks(part)


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
    elif hasattr(type(value), "model_fields"):
        yield from vars(value).values()
        yield from (getattr(value, "__pydantic_extra__", None) or {}).values()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from vars(value).values() if hasattr(value, "__dict__") else ()
