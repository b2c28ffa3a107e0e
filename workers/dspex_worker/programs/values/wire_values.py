"""Convert values between the wire and DSPy: outputs to wire values, inputs to their fields' types.

Pure. A wire value is None, bool, int, float, str, bytes, list, or dict with str keys. The parent gives outputs their
Python types again with the same annotations (RULES I2); this file does not know them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from enum import Enum
from typing import Any

import dspy
from pydantic import BaseModel, PydanticSchemaGenerationError, TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from ...types.annotation_facts import is_rich
from ..dspy_errors import invalid_input

_EXACT = frozenset({type(None), bool, int, float, str, bytes})
_BASES: tuple[Any, ...] = (int, float, str, bytes)
_TEXT_TYPES = (dspy.Reasoning, dspy.Code)


def to_wire(value: Any) -> Any:
    """Return `value` as an exact wire value: models and enums as their JSON, tuples and sets as lists, keys as text.

    Raises:
        PydanticSerializationError: the value has no JSON form.
    """
    kind = type(value)
    if kind in _EXACT:
        return value
    if isinstance(value, Enum):
        return to_wire(value.value)
    if isinstance(value, BaseModel):
        return _model_to_wire(value)
    if isinstance(value, Mapping) or hasattr(value, "toDict"):
        return {_key(key): to_wire(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_wire(item) for item in value]
    if isinstance(value, set | frozenset):
        # Sets have no order: sorted where they can be, so that equal results are equal bytes.
        return [to_wire(item) for item in _in_order(value)]
    for base in _BASES:
        if isinstance(value, base):
            return base(value)
    return to_wire(to_jsonable_python(value))


def to_input(name: str, value: Any, annotation: Any) -> Any:
    """Return the Python value for an input field; what builtin types describe is taken as it was sent, as DSPy does.

    Raises:
        Failure: InvalidInput, when a model, enum or other rich type does not accept the value.
    """
    if value is None or not is_rich(annotation):
        return value
    try:
        adapter = _adapter(annotation)
    except PydanticSchemaGenerationError:
        return value
    if annotation is dspy.History and isinstance(value, dict):
        value = _with_calls(value)
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        place = ".".join(map(str, error.errors(include_input=False)[0]["loc"])) or "the value itself"
        raise invalid_input(
            f"The input {name!r} does not fit its type: {error.error_count()} problem(s), the first at {place}.",
            field=name,
        ) from None


def _with_calls(history: dict[str, Any]) -> dict[str, Any]:
    """Return a conversation whose tool calls are typed again, where the parent marked them."""
    turns = [dict(turn) for turn in history["messages"]]
    for at, name in history.get("tool_calls") or ():
        turns[at][name] = dspy.ToolCalls.model_validate(turns[at][name])
    return {"messages": turns}


def _model_to_wire(value: BaseModel) -> Any:
    if isinstance(value, _TEXT_TYPES):
        return str(value.content if isinstance(value, dspy.Reasoning) else value.code)
    if isinstance(value, dspy.Type):
        # DSPy's own serializer makes prompt blocks of these; the caller wants the data.
        return {name: to_wire(getattr(value, name)) for name in type(value).model_fields}
    return to_wire(value.model_dump(mode="json"))


@functools.lru_cache(maxsize=256)
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def _key(key: Any) -> str:
    plain = to_wire(key)
    return plain if type(plain) is str else str(plain)


def _in_order(items: set[Any] | frozenset[Any]) -> list[Any]:
    try:
        return sorted(items)
    except TypeError:
        return sorted(items, key=repr)
