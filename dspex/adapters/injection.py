"""Refuse text that would become something else in a prompt (RULES X2).

DSPy turns a marked text inside any user message into content blocks, so a document that holds the marker could make
the provider fetch a URL. Only values of DSPy's own types may put the marker there. Field headers inside a value
pass, as in DSPy: documents may rightly contain them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from ..errors import UnsafeInput
from ..signatures.annotations import is_dspy_type
from ..signatures.field import Field
from ..types.markers import START
from .rendering import render
from .validation import texts_in

_HEADER: Final = re.compile(r"\[\[ ## \w+ ## \]\]")


def refuse_markers(fields: Mapping[str, Field], values: Mapping[str, Any]) -> None:
    """Check that every marker in the rendered values comes from a value of DSPy's own types.

    Raises:
        UnsafeInput: another text holds one; `field` names it.
    """
    for name, field in fields.items():
        if name not in values:
            continue
        text = render(values[name], field.annotation)
        if START in text and text.count(START) != sum(_marked(values[name])):
            raise _unsafe("input", name)


def refuse_marked_texts(values: Mapping[str, Any], *, but: Collection[str]) -> None:
    """Refuse a marker in any text outside the fields `but`: saved demos hold images as marked texts.

    Raises:
        UnsafeInput: one does; it names the field.
    """
    for name, value in values.items():
        if name not in but and any(START in text for text in texts_in(value)):
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


def _marked(value: Any) -> Iterator[int]:
    """Count the values of DSPy's types inside `value`; a large number if a marker of its own is smuggled in."""
    if is_dspy_type(type(value)):
        own = value.serialize_model()
        clean = own.count(START) <= 1 and (own.startswith(START) or START not in own)
        yield (1 if START in own else 0) if clean else -(10**6)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _marked(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _marked(item)
    elif hasattr(type(value), "model_fields"):
        for item in vars(value).values():
            yield from _marked(item)
