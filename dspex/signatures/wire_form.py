"""Convert a signature to plain data and back: the form that the parent and its workers exchange.

The form is {"instructions", "fields": [...], "types": {...}}; types are texts (`annotations.py`), and the classes
they name are described in "types". Only this file knows the form. A class is described by its schema where that says
all of it (`described_types`), and rebuilt models must give the very JSON schema that they were built from; every other
class is imported by the worker, or sent to it by value.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any, Protocol

from dspex_worker.types import annotation_writer
from dspex_worker.types.annotation_facts import is_rich
from dspex_worker.types.annotation_writer import Unwritable
from dspex_worker.types.enum_specs import enum_spec
from dspex_worker.types.type_names import CONSTRAINT_WORDS
from dspex_worker.types.type_specs import classes_from_specs

from ..errors import EncodeError, SignatureError
from .annotations import classes_in, is_dspy_type, read_canonical
from .described_types import is_described_class
from .field import Field
from .grammar import check_name
from .signature import Signature, signature_of_fields

IMPORTED = "__dspex_import__"  # on a class that stands for one that only workers import


class Sender(Protocol):
    """Gets classes and values to workers as they are."""

    def of_class(self, kind: type) -> dict[str, str]:
        """Return how a worker gets the class: {"import": path} or {"value": name of sent code}."""
        ...

    def by_value(self, thing: Any, label: str) -> str:
        """Return the name under which a worker gets the thing itself."""
        ...


def signature_to_wire(sig: Signature, sender: Sender | None = None, *, as_themselves: bool = False) -> dict[str, Any]:
    """Return a signature as JSON-able data from which a worker builds the same DSPy signature.

    Equal signatures give equal data. Without a `sender` the data are to be kept, in a file, and name the classes that
    no schema describes by their import path. `as_themselves` is for workers whose program has these classes too.

    Raises:
        EncodeError, FrameTooLarge, MissingDependency: what has to be sent by value cannot.
    """
    types = _Types(sender, as_themselves)
    fields = [_field_to_wire(field, types) for field in sig.fields.values()]
    return {"instructions": sig.doc, "fields": fields, "types": types.specs}


def signature_from_wire(wire: Mapping[str, Any], custom_types: Mapping[str, Any] | None = None) -> Signature:
    """Return the signature that `signature_to_wire` described.

    Enums and models are built anew unless `custom_types` has them.

    Raises:
        SignatureError: the description is not whole, or a class cannot be rebuilt exactly.
    """
    custom_types = custom_types or {}
    try:
        unknown = {name: spec for name, spec in wire["types"].items() if name not in custom_types}
        types = {**custom_types, **_classes(unknown)}
        fields = [_field_from_wire(field, types) for field in wire["fields"]]
        doc = wire["instructions"]
        if not isinstance(doc, str | None):
            raise TypeError(f"its instructions are a {type(doc).__name__}")
    except (KeyError, TypeError, AttributeError) as error:
        raise SignatureError(f"A signature's description is not whole: {error!r}.") from error
    return signature_of_fields({field.name: field for field in fields}, doc or "")


def _classes(specs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the classes; of those that only workers import, what stands for them here."""
    plain = {name: spec for name, spec in specs.items() if not _is_both(spec)}
    made = classes_from_specs(plain, _refuse_import, _refused)
    return made | {name: _worker_class(name, spec) for name, spec in specs.items() if _is_both(spec)}


def _is_both(spec: Any) -> bool:
    return isinstance(spec, Mapping) and "import" in spec and ("model" in spec or "enum" in spec)


def _worker_class(name: str, spec: Mapping[str, Any]) -> Any:
    """Return a class with the schema of one that only workers import; what has none that can be made takes anything."""
    described = {key: part for key, part in spec.items() if key != "import"}
    try:
        made = classes_from_specs({name: described}, _refuse_import, _refused)[name]
    except SignatureError:
        from pydantic import RootModel, create_model

        made = create_model(name, __base__=RootModel[Any])
    setattr(made, IMPORTED, spec["import"])
    return made


def imports_types(sig: Signature) -> bool:
    """Return whether a worker can find some type only by the module that holds it."""
    return sig.derive("imports types", _imports_types)


def _imports_types(sig: Signature) -> bool:
    kinds = (kind for field in sig.fields.values() for kind in classes_in(field.annotation))
    return any(not is_dspy_type(kind) and not is_described_class(kind) for kind in kinds)


def _field_to_wire(field: Field, types: _Types) -> dict[str, Any]:
    return {
        "name": field.name,
        "kind": field.kind,
        "annotation": types.text(field),
        "untyped": field.untyped,
        "desc": field.desc,
        "constraints": dict(field.constraints) if field.constraints else None,
        "default": types.default(field) if field.has_default else None,
    }


def _default_to_wire(field: Field, value: Any) -> Any:
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


_CONTAINERS: Any = (list, dict, set, tuple)


class _Types:
    """The types of one signature: their names in its texts, and how a worker gets each."""

    def __init__(self, sender: Sender | None, as_themselves: bool) -> None:
        self.specs: dict[str, dict[str, Any]] = {}
        self._sender = sender
        self._as_themselves = as_themselves
        self._names: dict[Any, str] = {}

    def text(self, field: Field) -> str:
        """Return the text of a field's type."""
        try:
            return annotation_writer.annotation_text(field.annotation, self._name_of)
        except Unwritable:
            name = f"TypeOf_{field.name}"
        self.specs[name] = self._thing(field.annotation, f"the type of {field.name!r}")
        return name

    def default(self, field: Field) -> dict[str, Any]:
        """Return a field's default, or what makes it."""
        factory = field.default_factory
        if factory is not None and factory not in _CONTAINERS and self._sender is not None:
            return {"factory": self._sender.by_value(factory, f"the default of {field.name!r}")}
        value = field.make_default()
        label = f"the default of {field.name!r}"
        if self._sender is not None and value is not None and is_rich(field.annotation):  # it may be of another type
            return {"code": self._sender.by_value(value, label)}
        try:
            return {"value": _default_to_wire(field, value)}
        except EncodeError:
            if self._sender is not None:
                return {"code": self._sender.by_value(value, label)}
        self.specs[f"DefaultOf_{field.name}"] = {"local": label}
        return {"value": None}

    def _thing(self, thing: Any, label: str) -> dict[str, str]:
        """Return how to get what has no name: by value; a file can only say that its program is needed."""
        return {"local": label} if self._sender is None else {"value": self._sender.by_value(thing, label)}

    def _name_of(self, kind: type) -> str:
        if is_dspy_type(kind):
            return str(getattr(kind, "dspy_name"))  # noqa: B009 - pydantic brings it
        name = self._names.get(kind)
        if name is None:
            name = self._names[kind] = self._new_name(kind)
            self.specs[name] = self._spec(name, kind)
        return name

    def _new_name(self, kind: type) -> str:
        name = kind.__name__
        if name.isidentifier() and name not in self.specs:
            return name
        stem = "".join(letter if letter.isalnum() else "_" for letter in name)
        return f"{stem}_{len(self.specs)}"

    def _spec(self, name: str, kind: type) -> dict[str, Any]:
        path = getattr(kind, IMPORTED, None)
        if path is not None:
            return {"import": path}
        if is_described_class(kind) and kind.__name__ == name and not (self._as_themselves and self._sender):
            return _description(kind)
        if self._sender is not None:
            return dict(self._sender.of_class(kind))
        is_local = kind.__module__ == "__main__" or "<" in kind.__qualname__
        return {"local" if is_local else "import": f"{kind.__module__}:{kind.__qualname__}"}


def _description(kind: Any) -> dict[str, Any]:
    if hasattr(kind, "model_json_schema"):
        return {"model": kind.model_json_schema()}
    return enum_spec(kind, lambda value: value)


def _refuse_import(name: str, path: str) -> Any:
    raise SignatureError(
        f"The type {name!r} is the class {path}; pass custom_types={{{name!r}: ...}}, as nothing is imported by name."
    )


def _refused(name: str, reason: str) -> SignatureError:
    return SignatureError(f"The type {name!r} {reason}. Pass the class by custom_types={{{name!r}: ...}}.")
