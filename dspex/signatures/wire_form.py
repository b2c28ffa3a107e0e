"""Convert a signature to plain data and back: the form that the parent and its workers exchange.

The form is {"instructions", "fields": [...], "types": {...}}; types are texts (`annotations.py`), and the classes
they name are described in "types". Only this file knows the form. Rebuilt models must give the very JSON schema
that they were built from, or they are refused: prompts quote it.
"""

from __future__ import annotations

import copy
import enum
import functools
import inspect
from collections.abc import Mapping
from typing import Any

from dspex_worker.types.enum_specs import enum_spec
from dspex_worker.types.type_names import CONSTRAINT_WORDS
from dspex_worker.types.type_specs import classes_from_specs

from ..errors import EncodeError, SignatureError
from .annotations import annotation_text, classes_in, is_dspy_type, read_canonical
from .field import Field
from .grammar import check_name
from .signature import Signature, signature_of_fields


def signature_to_wire(sig: Signature) -> dict[str, Any]:
    """Return a signature as JSON-able data from which a worker builds the same DSPy signature; not to be changed.

    Equal signatures give equal data.

    Raises:
        SignatureError: a type that cannot be named or described.
        EncodeError: a default that is not JSON.
    """
    if any(field.default_factory is not None for field in sig.fields.values()):
        return _to_wire(sig)  # it may make another default each time
    return sig.derive("wire form", _to_wire)


def signature_from_wire(wire: Mapping[str, Any], custom_types: Mapping[str, Any] | None = None) -> Signature:
    """Return the signature that `signature_to_wire` described.

    Enums and models are built anew unless `custom_types` has them.

    Raises:
        SignatureError: the description is not whole, or a class cannot be rebuilt exactly.
    """
    custom_types = custom_types or {}
    try:
        unknown = {name: spec for name, spec in wire["types"].items() if name not in custom_types}
        types = {**custom_types, **classes_from_specs(unknown, _refuse_import, _refused)}
        fields = [_field_from_wire(field, types) for field in wire["fields"]]
        doc = wire["instructions"]
    except (KeyError, TypeError, AttributeError) as error:
        raise SignatureError(f"A signature's description is not whole: {error!r}.") from error
    return signature_of_fields({field.name: field for field in fields}, doc)


def imports_types(sig: Signature) -> bool:
    """Return whether a worker can find some type only by the module that holds it."""
    return sig.derive("imports types", _imports_types)


def _to_wire(sig: Signature) -> dict[str, Any]:
    return {
        "instructions": sig.doc,
        "fields": [_field_to_wire(field) for field in sig.fields.values()],
        "types": _types_to_wire(sig),
    }


def _imports_types(sig: Signature) -> bool:
    kinds = (kind for field in sig.fields.values() for kind in classes_in(field.annotation))
    return any(not is_dspy_type(kind) and not _is_described(kind) for kind in kinds)


def _field_to_wire(field: Field) -> dict[str, Any]:
    return {
        "name": field.name,
        "kind": field.kind,
        "annotation": annotation_text(field.annotation),
        "untyped": field.untyped,
        "desc": field.desc,
        "constraints": dict(field.constraints) if field.constraints else None,
        "default": {"value": _default_to_wire(field)} if field.has_default else None,
    }


def _default_to_wire(field: Field) -> Any:
    value = field.make_default()
    if value is None or type(value) in (bool, int, float, str):
        return value
    from pydantic import TypeAdapter

    kind: Any = type(value)
    try:
        return TypeAdapter(kind).dump_python(value, mode="json")
    except Exception as error:  # pydantic raises several kinds; each means that the value has no JSON form
        raise EncodeError(f"the default of {field.name!r}", kind.__name__, "it has no JSON form") from error


def _field_from_wire(wire: Mapping[str, Any], types: Mapping[str, Any]) -> Field:
    if wire["kind"] not in ("input", "output"):
        raise SignatureError(f"The field {wire['name']!r} is neither an input nor an output: {wire['kind']!r}.")
    default = wire["default"]
    for key, kinds in _FIELD_KINDS.items():
        if not isinstance(wire[key], kinds):
            raise SignatureError(f"The {key} of the field {wire['name']!r} is a {type(wire[key]).__name__}.")
    _require_constraints(wire)
    field = Field(
        name=check_name(wire["name"]),
        kind=wire["kind"],
        annotation=read_canonical(wire["annotation"], types),
        untyped=wire["untyped"],
        desc=wire["desc"],
        constraints=wire["constraints"],
    )
    return field if default is None else _with_default(field, default["value"])


def _require_constraints(wire: Mapping[str, Any]) -> None:
    for key, value in (wire["constraints"] or {}).items():
        if key not in CONSTRAINT_WORDS or not isinstance(value, bool | int | float):
            raise SignatureError(f"The field {wire['name']!r} has no constraint {key!r} with such a value.")


def _with_default(field: Field, value: Any) -> Field:
    """Return the default under the field's type; lists, dicts and models are made anew for each use."""
    if value is None or (type(value) in (bool, int, float, str) and field.annotation in (bool, int, float, str)):
        return field.replace(default=value)
    from pydantic import TypeAdapter, ValidationError

    try:
        typed = TypeAdapter(field.annotation).validate_python(value)
    except ValidationError:
        typed = value  # pydantic does not check defaults, so one that does not fit is no error here either
    return field.replace(default_factory=functools.partial(copy.deepcopy, typed))


_FIELD_KINDS: Mapping[str, tuple[type, ...]] = {
    "annotation": (str,),
    "untyped": (bool,),
    "desc": (str, type(None)),
    "constraints": (dict, type(None)),
    "default": (dict, type(None)),
}


# --- the classes that the types name ------------------------------------------------------------------------------


def _types_to_wire(sig: Signature) -> dict[str, Any]:
    named: dict[str, type] = {}
    for field in sig.fields.values():
        for kind in classes_in(field.annotation):
            if is_dspy_type(kind):
                continue
            if named.setdefault(kind.__name__, kind) is not kind:
                raise SignatureError(f"Two different types of {sig} are called {kind.__name__!r}; rename one.")
    return {name: _type_to_wire(kind) for name, kind in named.items()}


def _type_to_wire(kind: type) -> dict[str, Any]:
    if issubclass(kind, enum.Enum):
        return enum_spec(kind, functools.partial(_plain_value, kind.__name__))
    if _is_described(kind):
        described: Any = kind
        return {"model": described.model_json_schema()}
    if kind.__module__ == "__main__" or "<" in kind.__qualname__ or not inspect.isclass(kind):
        raise SignatureError(
            f"The type {kind.__name__!r} is no enum and no model that its schema describes wholly (it may have aliases "
            f"or serializers), and no worker could import it either: define it at the top level of a module."
        )
    return {"import": f"{kind.__module__}:{kind.__qualname__}"}


def _is_described(kind: Any) -> bool:
    return issubclass(kind, enum.Enum) or (hasattr(kind, "model_json_schema") and _says_all(kind))


def _says_all(model: Any) -> bool:
    """Whether the schema describes what prompts show of a value: no aliases, no serializers, no computed members."""
    return all(
        each.model_json_schema(by_alias=False) == each.model_json_schema()
        and not (own := each.__pydantic_decorators__).field_serializers
        and not own.model_serializers
        and not own.computed_fields
        for each in _models_in(model, {})
    )


def _models_in(kind: Any, seen: dict[Any, None]) -> list[Any]:
    if kind not in seen:
        seen[kind] = None
        for field in kind.model_fields.values():
            for inner in classes_in(field.annotation):
                if hasattr(inner, "model_fields"):
                    _models_in(inner, seen)
    return list(seen)


def _plain_value(enum_name: str, value: Any) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise SignatureError(f"The enum {enum_name!r} has a value that is no text, number, bool or None.")


def _refuse_import(name: str, path: str) -> Any:
    raise SignatureError(
        f"The type {name!r} is the class {path}; pass custom_types={{{name!r}: ...}}, as nothing is imported by name."
    )


def _refused(name: str, reason: str) -> SignatureError:
    return SignatureError(f"The type {name!r} {reason}. Pass the class by custom_types={{{name!r}: ...}}.")
