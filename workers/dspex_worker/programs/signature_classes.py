"""DSPy signature classes from wire specs, and wire specs from the user's signature classes.

A spec names types by text and brings its own enums, models and imports along; no text of it reaches DSPy's string
parser. Pure but for the pool's `imports`; any thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from inspect import isclass
from typing import Any, get_args, get_origin

import dspy
from dspy.signatures.signature import make_signature
from dspy.utils.constants import IS_TYPE_UNDEFINED
from pydantic import BaseModel, PydanticUserError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from . import schemas
from . import type_wire as texts
from .dspy_errors import invalid_input
from .user_imports import Imports
from .wire_values import to_input, to_wire

# The words by which DSPy shows constraints (dspy/signatures/field.py); their order in its text is the order given.
_CONSTRAINT_WORDS = {
    "gt": "greater than:",
    "ge": "greater than or equal to:",
    "lt": "less than:",
    "le": "less than or equal to:",
    "min_length": "minimum length:",
    "max_length": "maximum length:",
    "multiple_of": "a multiple of the given number:",
    "allow_inf_nan": "allow 'inf', '-inf', 'nan' values:",
}


def build(spec: Mapping[str, Any], imports: Imports) -> type[dspy.Signature]:
    """Return the signature class that `spec` describes.

    Raises:
        Failure: InvalidInput for a spec that is no signature, UnknownName for a type outside the pool's imports.
    """
    types = _types(spec.get("types") or {}, imports)
    fields = {str(field["name"]): _field(field, types) for field in spec["fields"]}
    if len(fields) != len(spec["fields"]):
        raise invalid_input("Two fields of the signature have the same name.")
    try:
        made: type[dspy.Signature] = make_signature(fields, spec["instructions"] or None)
    except (TypeError, ValueError, PydanticUserError) as error:
        raise invalid_input(f"DSPy does not accept this signature: {error}") from None
    if spec["instructions"] == "":  # an empty docstring; make_signature would take it for none
        made.instructions = ""
    return made


def describe(signature: type[dspy.Signature], imports: Imports) -> dict[str, Any]:
    """Return the wire spec of a signature class.

    Raises:
        Failure: InvalidInput, when a type of it cannot be written.
    """
    types: dict[str, Any] = {}
    names: dict[Any, str] = {}
    for annotation in (info.annotation for info in signature.fields.values()):
        for cls in _own_classes(annotation):
            if names.setdefault(cls, cls.__name__) in types and types[names[cls]] != _type_spec(cls, imports):
                raise invalid_input(f"Two types of the signature are both called {cls.__name__!r}.")
            types[names[cls]] = _type_spec(cls, imports)
    fields = [_field_spec(name, info, names) for name, info in signature.fields.items()]
    # As it was written: taking the indentation off twice is not the same as once.
    return {"instructions": signature.__doc__ or "", "fields": fields, "types": types}


# --- building -----------------------------------------------------------------------------------------------------


def _types(specs: Mapping[str, Any], imports: Imports) -> dict[str, Any]:
    types: dict[str, Any] = {}
    for name, spec in specs.items():
        match spec:
            case {"enum": members}:
                types[name] = schemas.enum_from(name, members, spec.get("doc"))
            case {"import": path}:
                types[name] = imports.resolve(path, "type")
            case {"model": schema}:
                types[name] = schemas.model_from(name, schema, types)
            case _:
                raise invalid_input(f"The signature's type {name!r} is neither an enum, a model nor an import.")
    return types


def _field(spec: Mapping[str, Any], types: Mapping[str, Any]) -> tuple[Any, FieldInfo]:
    name, is_input = str(spec["name"]), spec["kind"] == "input"
    annotation = texts.parse(spec.get("annotation") or "str", types, name)
    options: dict[str, Any] = dict(spec.get("constraints") or {})
    if spec.get("desc") is not None:
        options["desc"] = spec["desc"]
    if spec.get("default") is not None:
        options["default"] = to_input(name, spec["default"]["value"], annotation)
    if spec.get("untyped") and is_input:
        options[IS_TYPE_UNDEFINED] = True
    return annotation, (dspy.InputField if is_input else dspy.OutputField)(**options)


# --- describing ---------------------------------------------------------------------------------------------------


def _own_classes(annotation: Any) -> Iterator[type]:
    if isclass(annotation) and get_origin(annotation) is None:
        is_dspy = issubclass(annotation, dspy.Type | dspy.History) and annotation.__module__.startswith("dspy.")
        if issubclass(annotation, Enum | BaseModel) and not is_dspy:
            yield annotation
    for part in get_args(annotation):
        yield from _own_classes(part)


def _type_spec(cls: type, imports: Imports) -> dict[str, Any]:
    if issubclass(cls, Enum):
        members = {name: to_wire(member.value) for name, member in cls.__members__.items()}
        return {"enum": members} if cls.__doc__ is None else {"enum": members, "doc": cls.__doc__}
    if imports.has(cls):
        return {"import": f"{cls.__module__}:{cls.__qualname__}"}
    assert issubclass(cls, BaseModel)
    return {"model": cls.model_json_schema()}


def _field_spec(name: str, info: FieldInfo, names: Mapping[Any, str]) -> dict[str, Any]:
    extra: dict[str, Any] = info.json_schema_extra  # type: ignore[assignment]
    try:
        text = texts.spell(info.annotation, names)
    except TypeError as error:
        raise invalid_input(f"The type of field {name!r} cannot be sent: {error}.", name) from None
    default = info.default_factory() if info.default_factory else info.default  # type: ignore[call-arg]
    desc = extra.get("desc")
    return {
        "name": name,
        "kind": extra["__dspy_field_type"],
        "annotation": text,
        "untyped": bool(extra.get(IS_TYPE_UNDEFINED)),
        "desc": None if desc == f"${{{name}}}" else desc,
        "constraints": _constraints(info, str(extra.get("constraints", ""))) or None,
        "default": None if default is PydanticUndefined else {"value": to_wire(default)},
    }


def _constraints(info: FieldInfo, text: str) -> dict[str, Any]:
    values = {key: getattr(item, key) for item in info.metadata for key in _CONSTRAINT_WORDS if hasattr(item, key)}
    return {key: values[key] for key in sorted(values, key=lambda key: text.find(_CONSTRAINT_WORDS[key]))}
