"""Parse string signatures, `"question, context: list[str] -> answer: str"`, into fields.

Stricter than DSPy, which silently drops defaults, `*args`, `/` and repeated names: here each is an error with its
position. Wider in one point: `->` may stand inside a quoted literal. Pure functions; types are read by
`annotations.py`.
"""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ..errors import SignatureError
from .annotations import read_annotation
from .field import Field, Kind

# What DSPy cannot bear as a field name: attributes of its signature classes (found by trying every one).
RESERVED: Final = frozenset({
    "fields", "input_fields", "output_fields", "instructions", "signature", "model_config", "model_dump",
    "model_dump_json", "model_validate", "model_validate_json", "model_validate_strings",
})  # fmt: skip

_TOKEN: Final = re.compile(r"""'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"|->|[\[\](){},:=*/'"#;]""")
_OPENING: Final = {"[": "]", "(": ")", "{": "}"}


def read_fields(text: str, custom_types: Mapping[str, Any] | None = None) -> dict[str, Field]:
    """Return the fields that `text` declares, inputs first.

    Raises:
        SignatureError: the text is not the grammar's; the message has the position.
    """
    fields: dict[str, Field] = {}
    for name, annotation, at, kind in _declarations(text):
        if name in fields:
            raise SignatureError(f"The field {name!r} is declared twice.", text=text, position=at)
        fields[name] = _field(name, annotation, kind, text, custom_types)
    return fields


def check_name(name: str, *, text: str = "", position: int | None = None) -> str:
    """Return the name as Python would spell it (NFKC).

    A keyword of Python is a name like any other outside a signature's `text`, as in DSPy.

    Raises:
        SignatureError: no identifier, a private name, or an attribute of DSPy's own signature classes.
    """
    if not name.isascii():
        name = unicodedata.normalize("NFKC", name)
    if not name.isidentifier() or (text and keyword.iskeyword(name)):
        problem = f"{name!r} is not a field name" if name else "a field name is missing"
    elif name.startswith("_"):
        problem = f"the field name {name!r} begins with an underscore, which DSPy refuses"
    elif name in RESERVED:
        problem = f"the field name {name!r} is an attribute of DSPy's signatures; choose another"
    else:
        return name
    raise SignatureError(f"{problem[0].upper()}{problem[1:]}.", text=text, position=position)


def _field(
    name: str, annotation: tuple[str, int] | None, kind: Kind, text: str, custom: Mapping[str, Any] | None
) -> Field:
    if annotation is None:
        return Field(name, kind, str, kind == "input")
    source, start = annotation
    try:
        return Field(name, kind, read_annotation(source, custom))
    except SignatureError as error:
        message = str(error).partition("\n")[0]
        raise SignatureError(message, text=text, position=start + (error.position or 0)) from None


def _declarations(text: str) -> Iterator[tuple[str, tuple[str, int] | None, int, Kind]]:
    """Return (name, (type text, its position) or None, position, side) of each declaration, in order."""
    arrow, pieces = _split(text)
    for start, end, colon, is_last in pieces:
        kind: Kind = "input" if start < arrow else "output"
        if is_last and not text[start:end].strip():
            continue  # an empty side, or a trailing comma: DSPy allows both
        stop = end if colon is None else colon
        at = start + len(text[start:stop]) - len(text[start:stop].lstrip())
        name = check_name(text[start:stop].strip(), text=text, position=min(at, max(len(text) - 1, 0)))
        if colon is None:
            yield name, None, at, kind
            continue
        source = text[colon + 1 : end]
        lead = len(source) - len(source.lstrip())
        if not source.strip():
            raise SignatureError(f"The type of {name!r} is missing.", text=text, position=colon)
        yield name, (source.strip(), colon + 1 + lead), at, kind


def _split(text: str) -> tuple[int, list[tuple[int, int, int | None, bool]]]:
    """Return the arrow's position, and (start, end, colon, is last of its side) of each top-level piece."""
    pieces: list[tuple[int, int, int | None, bool]] = []
    closing: list[str] = []
    arrow, start, colon = -1, 0, None
    for token in _TOKEN.finditer(text):
        mark, at = token.group(), token.start()
        if mark in _OPENING:
            closing.append(_OPENING[mark])
        elif mark in "])}":
            if not closing or closing.pop() != mark:
                raise SignatureError(f"The bracket {mark!r} closes nothing.", text=text, position=at)
        elif mark in ("'", '"'):
            raise SignatureError("This quote is not closed.", text=text, position=at)
        elif closing:
            continue
        elif mark == "->":
            if arrow >= 0:
                raise SignatureError("A signature has exactly one '->'; this is the second.", text=text, position=at)
            pieces.append((start, at, colon, True))
            arrow, start, colon = at, at + 2, None
        elif mark == ",":
            pieces.append((start, at, colon, False))
            start, colon = at + 1, None
        elif mark == ":" and colon is None:
            colon = at
        elif len(mark) == 1:
            raise SignatureError(_refusal(mark), text=text, position=at)
    if closing:
        raise SignatureError(f"A {closing[-1]!r} is missing at the end.", text=text, position=max(len(text) - 1, 0))
    if arrow < 0:
        raise SignatureError(
            "A signature needs one '->' between inputs and outputs, as in 'question -> answer'.",
            text=text,
            position=max(len(text) - 1, 0),
        )
    pieces.append((start, len(text), colon, True))
    return arrow, pieces


def _refusal(mark: str) -> str:
    if mark == "=":
        return "A default cannot be given in a string signature (DSPy would drop it); use the class form."
    if mark in "*/":
        return f"{mark!r} has no meaning in a signature (DSPy would drop the fields after it)."
    if mark == ":":
        return "A second ':' in one field."
    return f"{mark!r} has no meaning in a signature."
