"""Convert between DSPy's signature classes and wire specs.

A spec names types by text and brings its own enums, models and imports along; no text of it reaches DSPy's string
parser. Pure but for the pool's `imports`; any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, cast

import dspy
from dspy import experimental
from dspy.signatures.signature import make_signature
from dspy.utils.constants import IS_TYPE_UNDEFINED
from pydantic import PydanticUserError, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ...failure import Failure
from ...types.annotation_facts import classes_in
from ...types.annotation_reader import Unreadable, Vocabulary, read_canonical
from ...types.annotation_writer import Unwritable, annotation_text
from ...types.described_classes import is_described_class
from ...types.enum_specs import enum_spec
from ...types.type_names import CONSTRAINT_WORDS, DSPY_TYPES
from ...types.type_specs import classes_from_specs
from ..code.host_code import is_by_value
from ..code.user_imports import UserImports
from ..dspy_errors import invalid_input
from ..values.wire_values import to_input, to_wire

_DSPY_TYPES = {name: getattr(dspy, name, None) or getattr(experimental, name) for name in DSPY_TYPES}


def build(spec: Mapping[str, Any], imports: UserImports) -> type[dspy.Signature]:
    """Return the signature class that `spec` describes.

    Raises:
        Failure: InvalidInput for a spec that is no signature, UnknownName for a type outside the pool's imports.
    """
    types = _types(spec.get("types") or {}, imports)
    fields = {str(field["name"]): _field(field, types, imports) for field in spec["fields"]}
    if len(fields) != len(spec["fields"]):
        raise invalid_input("Two fields of the signature have the same name.")
    try:
        made: type[dspy.Signature] = make_signature(fields, spec["instructions"] or None)
    except (TypeError, ValueError, PydanticUserError) as error:
        raise invalid_input(f"DSPy does not accept this signature: {error}") from None
    if spec["instructions"] == "":  # an empty docstring; make_signature would take it for none
        made.instructions = ""
    return made


def describe(signature: type[dspy.Signature], imports: UserImports) -> dict[str, Any]:
    """Return the wire spec of a signature class.

    Raises:
        Failure: InvalidInput, when a type of it cannot be written.
    """
    types: dict[str, Any] = {}
    names: dict[Any, str] = {}
    for annotation in (info.annotation for info in signature.fields.values()):
        for cls in _own_classes(annotation):
            if cls not in names:
                names[cls] = _new_name(cls, types)
                types[names[cls]] = _type_spec(cls, imports)
    fields = [_field_spec(name, info, names) for name, info in signature.fields.items()]
    # As it was written: taking the indentation off twice is not the same as once.
    return {"instructions": signature.__doc__ or "", "fields": fields, "types": types}


# --- building -----------------------------------------------------------------------------------------------------


def _types(specs: Mapping[str, Any], imports: UserImports) -> dict[str, Any]:
    def imported(name: str, path: str) -> Any:
        return imports.sent(path, f"The type {name!r}") if is_by_value(path) else imports.resolve(path, "type")

    return classes_from_specs(specs, imported, _refused, prefers_import=True)


def _refused(name: str, reason: str) -> Failure:
    return invalid_input(
        f"The type {name!r} of the signature {reason}. Put its module into the pool's `imports`, so that the worker "
        f"imports the class itself."
    )


def _field(spec: Mapping[str, Any], types: Mapping[str, Any], imports: UserImports) -> tuple[Any, FieldInfo]:
    name, is_input = str(spec["name"]), spec["kind"] == "input"
    annotation = _annotation(spec.get("annotation") or "str", types, name)
    options: dict[str, Any] = dict(spec.get("constraints") or {})
    if spec.get("desc") is not None:
        options["desc"] = spec["desc"]
    if spec.get("default") is not None:
        options |= _default(name, spec["default"], annotation, imports)
    if spec.get("untyped") and is_input:
        options[IS_TYPE_UNDEFINED] = True
    return annotation, (dspy.InputField if is_input else dspy.OutputField)(**options)


def _default(name: str, default: Mapping[str, Any], annotation: Any, imports: UserImports) -> dict[str, Any]:
    """Return a field's default, as data, or as what the host sent by value: a value, or what makes one."""
    for kind, option in (("code", "default"), ("factory", "default_factory")):
        if default.get(kind) is not None:
            return {option: imports.sent(str(default[kind]), f"The default of {name!r}")}
    return {"default": to_input(name, default["value"], annotation)}


def _annotation(text: str, types: Mapping[str, Any], field: str) -> Any:
    try:
        code_of = cast("Callable[[str], Any]", dspy.Code.__class_getitem__)  # DSPy's own: it takes a language
        return read_canonical(text, Vocabulary(_DSPY_TYPES.__getitem__, code_of, types))
    except Unreadable as error:
        raise invalid_input(
            f"The annotation {text[:80]!r} of field {field!r} cannot be used: {error}.", field
        ) from None


# --- describing ---------------------------------------------------------------------------------------------------


def _own_classes(annotation: Any) -> Iterator[type]:
    return (cls for cls in classes_in(annotation) if not _is_dspys(cls))


def _is_dspys(cls: type) -> bool:
    return issubclass(cls, dspy.Type | dspy.History) and cls.__module__.startswith("dspy.")


def _new_name(cls: type, taken: Mapping[str, Any]) -> str:
    """Return a name that a text of types can hold, and that no other type has: `Box[int]` has none of its own."""
    if cls.__name__.isidentifier() and cls.__name__ not in taken:
        return cls.__name__
    stem = "".join(letter if letter.isalnum() else "_" for letter in cls.__name__)
    return f"{stem}_{len(taken)}"


def _type_spec(cls: type, imports: UserImports) -> dict[str, Any]:
    """Return how to get a class: where workers may import it, by its path, beside what its schema says for the host."""
    path = {"import": f"{cls.__module__}:{cls.__qualname__}"} if imports.has(cls) else {}
    if issubclass(cls, Enum):
        return {**enum_spec(cls, to_wire), **path}
    if not path and not is_described_class(cls):
        raise invalid_input(
            f"The type {cls.__name__!r} of the signature does more than its schema says (validators, aliases...), and "
            f"its module {cls.__module__!r} is not in the pool's imports: add it there."
        )
    return {"model": _schema(cls), **path}


def _schema(cls: Any) -> dict[str, Any]:
    try:
        return TypeAdapter(cls).json_schema()
    except PydanticUserError:  # the host takes whatever comes for it
        return {}


def _namer(names: Mapping[Any, str]) -> Callable[[type], str]:
    """Names the classes that the spec brings along, and DSPy's."""

    def name_of(cls: type) -> str:
        if cls in names:
            return names[cls]
        if issubclass(cls, dspy.Code) and cls is not dspy.Code:
            return f"dspy.Code[{getattr(cls, 'language', '')!r}]"
        if _DSPY_TYPES.get(cls.__name__) is cls:
            return f"dspy.{cls.__name__}"
        raise Unwritable(f"{cls!r} cannot be written as an annotation")

    return name_of


def _field_spec(name: str, info: FieldInfo, names: Mapping[Any, str]) -> dict[str, Any]:
    extra: dict[str, Any] = info.json_schema_extra  # type: ignore[assignment]
    try:
        text = annotation_text(info.annotation, _namer(names))
    except Unwritable as error:
        raise invalid_input(f"The type of field {name!r} cannot be sent: {error}", name) from None
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
    values = {key: getattr(item, key) for item in info.metadata for key in CONSTRAINT_WORDS if hasattr(item, key)}
    return {key: values[key] for key in sorted(values, key=lambda key: text.find(CONSTRAINT_WORDS[key]))}
