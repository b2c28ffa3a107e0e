"""The names that an annotation may use without the signature's own types, and the words of constraints."""

from __future__ import annotations

import datetime
import decimal
import typing
import uuid
from collections.abc import Mapping
from typing import Any, Final

# The words that DSPy puts before each constraint (dspy/signatures/field.py); constraints are shown, never enforced.
CONSTRAINT_WORDS: Final[Mapping[str, str]] = {
    "gt": "greater than: ",
    "ge": "greater than or equal to: ",
    "lt": "less than: ",
    "le": "less than or equal to: ",
    "min_length": "minimum length: ",
    "max_length": "maximum length: ",
    "multiple_of": "a multiple of the given number: ",
    "allow_inf_nan": "allow 'inf', '-inf', 'nan' values: ",
}
DSPY_TYPES: Final = (
    "Image", "Audio", "File", "Code", "Reasoning", "History", "Tool", "ToolCalls", "ToolCallResults",
    "Citations", "Document",
)  # fmt: skip
GENERICS: Final = (
    "Annotated", "Dict", "FrozenSet", "Iterable", "List", "Literal", "Mapping", "MutableMapping", "Optional",
    "Sequence", "Set", "Tuple", "Type", "Union",
)  # fmt: skip
_PLAIN: Final = (int, str, float, bool, list, tuple, dict, set, frozenset, complex, bytes)
_ABSTRACT: Final = ("Iterable", "Mapping", "MutableMapping", "Sequence")  # `Sequence[int]` keeps the class behind it

NAMES: Final[Mapping[str, Any]] = {
    **{plain.__name__: plain for plain in _PLAIN},
    **{name: getattr(typing, name) for name in ("Any", *GENERICS)},
    **{f"typing.{name}": getattr(typing, name) for name in ("Any", *GENERICS)},
    "NoneType": type(None),
    "datetime.datetime": datetime.datetime,
    "datetime.date": datetime.date,
    "datetime.time": datetime.time,
    "datetime.timedelta": datetime.timedelta,
    "decimal.Decimal": decimal.Decimal,
    "uuid.UUID": uuid.UUID,
}
TEXT_OF: Final[Mapping[Any, str]] = (
    {named: name for name, named in NAMES.items() if not name.startswith("typing.")}
    | {type(None): "None"}
    | {getattr(typing, name).__origin__: name for name in _ABSTRACT}
)
