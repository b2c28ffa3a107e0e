"""Pydantic models and enums rebuilt from what a signature's spec says of them.

A rebuilt model must describe itself with exactly the JSON schema it was built from, because DSPy's prompts quote
that schema; a model for which that fails is refused rather than served with another prompt. Pure; classes are made,
nothing is imported.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Mapping
from enum import Enum
from functools import reduce
from typing import Any, ForwardRef, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, create_model

from .dspy_errors import invalid_input

_FORMATS: dict[str, Any] = {
    "date-time": datetime.datetime,
    "date": datetime.date,
    "time": datetime.time,
    "duration": datetime.timedelta,
    "uuid": uuid.UUID,
    "binary": bytes,
}
_PLAIN: dict[str, Any] = {"string": str, "integer": int, "number": float, "boolean": bool, "null": type(None)}
_CONSTRAINTS = {
    "exclusiveMinimum": "gt",
    "minimum": "ge",
    "exclusiveMaximum": "lt",
    "maximum": "le",
    "minLength": "min_length",
    "maxLength": "max_length",
    "minItems": "min_length",
    "maxItems": "max_length",
    "multipleOf": "multiple_of",
    "pattern": "pattern",
}
_REF = "#/$defs/"
_make_enum: Any = Enum  # its functional form, of which type checkers know only literal calls


def enum_from(name: str, members: Mapping[str, Any], doc: str | None = None) -> type[Enum]:
    """An enum with these members, in this order; its docstring is part of its JSON schema, and so of prompts."""
    made: type[Enum] = _make_enum(name, dict(members))
    if doc is not None:
        made.__doc__ = doc
    return made


def model_from(name: str, schema: Mapping[str, Any], known: Mapping[str, Any]) -> type[BaseModel]:
    """A model whose JSON schema is `schema`; `known` holds classes already rebuilt, which references prefer.

    Raises:
        Failure: InvalidInput, when no model can be rebuilt that describes itself with the same schema.
    """
    definitions = dict(schema.get("$defs", {}))
    if name in definitions and "$ref" in schema:
        body = definitions[name]
    else:
        body = {key: value for key, value in schema.items() if key != "$defs"}
    try:
        model = _Rebuilt({**definitions, name: body}, known).whole(name)
        is_same = _same(model.model_json_schema(), schema)
    except (KeyError, TypeError, ValueError, RecursionError, PydanticUserError, _Unsupported):
        is_same = False
    if not is_same:
        raise invalid_input(
            f"The model {name!r} cannot be rebuilt in the worker with the same JSON schema. Put its module into the "
            f"pool's `imports`, so that the worker imports the class itself."
        )
    return model  # type: ignore[no-any-return]


def _same(made: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    # Key order matters: prompts sort keys, but `required` and `properties` orders survive into them.
    return made == given and list(made.get("properties", ())) == list(given.get("properties", ()))


class _Unsupported(Exception):
    """A JSON schema that no type of ours stands for."""


class _Rebuilt:
    """The classes of one schema's definitions, each built once."""

    def __init__(self, definitions: Mapping[str, Any], known: Mapping[str, Any]) -> None:
        self._definitions = definitions
        self._classes: dict[str, Any] = {}
        self._known = known
        self._under_way: set[str] = set()

    def whole(self, name: str) -> Any:
        """The class of that name, with every class that it needs complete."""
        made = self.class_named(name)
        for each in self._classes.values():
            if not issubclass(each, Enum):
                each.model_rebuild(force=True, _types_namespace={**self._known, **self._classes})
        return made

    def class_named(self, name: str) -> Any:
        if name in self._classes:
            return self._classes[name]
        if name in self._known:
            return self._known[name]
        if name in self._under_way:
            return ForwardRef(name)  # a model that refers to itself; `whole` completes it
        self._under_way.add(name)
        self._classes[name] = self._class(name, self._definitions[name])
        return self._classes[name]

    def _class(self, name: str, schema: Mapping[str, Any]) -> Any:
        if "enum" in schema:
            listed = enum_from(name, {str(value): value for value in schema["enum"]})
            listed.__doc__ = schema.get("description")
            return listed
        if schema.get("type") != "object":
            raise _Unsupported(f"{name} is neither a model nor an enum")
        required = set(schema.get("required", ()))
        fields = {field: self._field(body, field in required) for field, body in schema.get("properties", {}).items()}
        extra = {True: "allow", False: "forbid", None: None}[schema.get("additionalProperties")]
        config = ConfigDict(title=schema.get("title"), **({"extra": extra} if extra else {}))  # type: ignore[typeddict-item]
        made = create_model(name, __config__=config, **fields)  # type: ignore[call-overload]
        made.__doc__ = schema.get("description")
        return made

    def _field(self, schema: Mapping[str, Any], is_required: bool) -> tuple[Any, Any]:
        options: dict[str, Any] = {key: schema[key] for key in ("title", "description", "examples") if key in schema}
        if not is_required:
            options["default"] = schema.get("default")
        options |= {ours: schema[theirs] for theirs, ours in _CONSTRAINTS.items() if theirs in schema}
        return self._type(schema), Field(**options)

    def _type(self, schema: Mapping[str, Any]) -> Any:
        if "$ref" in schema:
            return self.class_named(str(schema["$ref"]).removeprefix(_REF))
        if "const" in schema:
            return Literal[schema["const"]]
        if "enum" in schema:
            return Literal[tuple(schema["enum"])]
        if "anyOf" in schema:
            return reduce(lambda left, right: Union[left, right], map(self._type, schema["anyOf"]))  # noqa: UP007
        if "allOf" in schema and len(schema["allOf"]) == 1:
            return self._type(schema["allOf"][0])
        kind = schema.get("type")
        if kind == "array":
            return self._array(schema)
        if kind == "object":
            values = schema.get("additionalProperties", True)
            return dict[str, Any] if values is True else dict[str, self._type(values)]  # type: ignore[misc]
        if kind is None:
            return Any
        if kind == "string" and schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        if kind not in _PLAIN:
            raise _Unsupported(str(kind))
        return _PLAIN[kind]

    def _array(self, schema: Mapping[str, Any]) -> Any:
        if "prefixItems" in schema:
            return tuple[tuple(map(self._type, schema["prefixItems"]))]  # type: ignore[misc]
        items = self._type(schema.get("items", {}))
        return set[items] if schema.get("uniqueItems") else list[items]  # type: ignore[valid-type]
