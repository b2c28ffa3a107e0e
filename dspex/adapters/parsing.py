"""Parse a language model's text into a field's Python value, with DSPy's leniency and its quirks.

Follows `parse_value` of dspy/adapters/utils.py 3.4.1. One `ValueParser` per output field; its pydantic TypeAdapter is
made at first need and kept.
"""

from __future__ import annotations

import ast
import enum
import functools
import inspect
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal, Union, cast, get_args, get_origin

from ..signatures.annotations import allows_none, is_dspy_type
from ..signatures.field import Field
from ..types.lenient_json import loads
from ..types.parse_budget import require_literal
from .validation_cost import Guard, guard_of

if TYPE_CHECKING:
    from pydantic import TypeAdapter

# Beyond what DSPy catches (ValueError): these come from absurd answers, and are no less the model's fault.
UNREADABLE: Final = (ValueError, TypeError, RecursionError, MemoryError, OverflowError)
PASSED_BY: Final = (TypeError, RecursionError, MemoryError, OverflowError)  # DSPy does not ask again after these


class ValueParser:
    """Reads the values of one output field."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self.read: Callable[[Any], Any] = _reading(field.annotation, self)

    @functools.cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """pydantic's validator for the field's type."""
        from pydantic import TypeAdapter

        return TypeAdapter(self.field.annotation)

    @functools.cached_property
    def _guard(self) -> Guard | None:
        return guard_of(self.field.annotation)

    def validated(self, value: Any, *, by_name: bool | None = None) -> Any:
        """Return the value by pydantic; with `by_name` members go by their own names, beside their aliases.

        Raises:
            UNREADABLE: one of these, TooCostly among them.
        """
        adapter = self.adapter  # which also completes the classes that the guard looks into
        if self._guard is not None:
            self._guard(value)
        return adapter.validate_python(value) if by_name is None else adapter.validate_python(value, by_name=by_name)

    @functools.cached_property
    def is_optional(self) -> bool:
        """Whether an answer may leave the field out."""
        return self.field.has_default or allows_none(self.field.annotation)

    def absent(self) -> Any:
        """Return the value of an optional field that the answer left out."""
        return self.field.make_default() if self.field.has_default else None


def _reading(annotation: Any, reader: ValueParser) -> Callable[[Any], Any]:
    if annotation is str:
        return str
    if isinstance(annotation, enum.EnumMeta):
        return functools.partial(_member, cast("type[enum.Enum]", annotation))
    if get_origin(annotation) is Literal:
        return functools.partial(_literal, get_args(annotation), reader)
    if _is_text_or_none(annotation):
        return reader.validated
    if inspect.isclass(annotation) and is_dspy_type(annotation):
        return functools.partial(_dspy_value, reader)
    return functools.partial(_general, reader)


def _is_text_or_none(annotation: Any) -> bool:
    arguments = get_args(annotation)
    return get_origin(annotation) in (Union, types.UnionType) and type(None) in arguments and str in arguments


def _member(kind: type[enum.Enum], value: Any) -> Any:
    for member in kind:
        if member.value == value:
            return member
    if value in kind.__members__:
        return kind[value]
    raise ValueError(f"not a value or name of {kind.__name__}")


def _literal(allowed: tuple[Any, ...], reader: ValueParser, value: Any) -> Any:
    if value in allowed:
        return value
    if isinstance(value, str):
        value = _unwrapped(value)
        if value in allowed:
            return value
    return _general(reader, value)


def _unwrapped(value: str) -> str:
    value = value.strip()
    if value.startswith(("Literal[", "str[")) and value.endswith("]"):
        value = value[value.find("[") + 1 : -1]
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    return value


def _general(reader: ValueParser, value: Any) -> Any:
    return reader.validated(_candidate(value) if isinstance(value, str) else value)


def _dspy_value(reader: ValueParser, value: Any) -> Any:
    try:
        return _general(reader, value)
    except ValueError:
        if not isinstance(value, str):
            raise
        return reader.validated(value)


def _candidate(text: str) -> Any:
    found = loads(text)
    if found != "" or text == "":
        return found
    require_literal(text)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
