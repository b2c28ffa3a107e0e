"""Make a worker's outputs again from forms that say of what they were made (by `values.output_encoder`, there).

A worker may send anything: only classes that the signature leads to are made, without running their code, and each
value is then compared with its field's type. Members of a model with validators are whatever these made.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import pathlib
import sys
import typing
import uuid
from collections.abc import Callable, Collection, Mapping
from inspect import isclass
from typing import Any, Final

from dspex_worker.types.annotation_facts import classes_in

from ..signatures.annotations import is_dspy_type
from ..types.prediction import Prediction

DEPTH_MOST: Final = 100
NUMBERS_MOST: Final = 4096  # members of a set that are no text
_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})
_SEQUENCES: Final[dict[str, Callable[[Any], Any]]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}


def _by_pydantic(kind: Any) -> Callable[[str], Any]:
    """Return what reads a text as pydantic does: with a time zone of its own class."""

    def read(text: str) -> Any:
        from pydantic import TypeAdapter

        return TypeAdapter(kind).validate_python(text)

    return read


_SCALARS: Final[dict[str, Callable[[str], Any]]] = {
    "datetime": datetime.datetime.fromisoformat,
    "date": datetime.date.fromisoformat,
    "time": datetime.time.fromisoformat,
    "timedelta": lambda text: datetime.timedelta(*map(int, text.split(","))),
    "Decimal": decimal.Decimal,
    "UUID": uuid.UUID,
    "complex": complex,
    "PosixPath": pathlib.Path,
    "pydantic datetime": _by_pydantic(datetime.datetime),
    "pydantic time": _by_pydantic(datetime.time),
}


class UnreadableForm(ValueError):
    """What came is no form of a value."""


class KnownClasses:
    """The classes that an annotation leads to, by the names that workers use for them, and those of loaded packages."""

    def __init__(self, annotation: Any, packages: Collection[str] = ()) -> None:
        self._by_name: dict[str, Any] = {}
        self._packages = frozenset(packages)
        self._add(annotation)

    @property
    def are_open(self) -> bool:
        """Whether no signature says what comes."""
        return bool(self._packages)

    def get(self, name: Any) -> Any:
        """Return the class of that name; None if it is none of these."""
        if not isinstance(name, str):
            return None
        return self._by_name[name] if name in self._by_name else self._loaded(name)

    def _loaded(self, name: str) -> Any:
        """Return a class that this process has loaded already; nothing is imported for what a worker says."""
        module, _, qualified = name.partition(":")
        if module.partition(".")[0] not in self._packages or module not in sys.modules:
            return None
        found: Any = sys.modules[module]
        for part in qualified.split("."):
            found = vars(found).get(part) if hasattr(found, "__dict__") else None
        is_own = isclass(found) and f"{found.__module__}:{found.__qualname__}" == name
        return found if is_own and _is_of_values(found) else None

    def _add(self, annotation: Any) -> None:
        for kind in classes_in(annotation):
            name = f"{kind.__module__}:{kind.__qualname__}"
            if name in self._by_name or is_dspy_type(kind):
                continue
            self._by_name[name] = kind
            for inner in _member_types(kind):
                self._add(inner)


def _is_of_values(kind: Any) -> bool:
    """Whether instances are values: enums, models, dataclasses, named tuples."""
    is_row = issubclass(kind, tuple) and hasattr(kind, "_fields")
    return issubclass(kind, enum.Enum) or hasattr(kind, "model_fields") or dataclasses.is_dataclass(kind) or is_row


def _member_types(kind: Any) -> list[Any]:
    if hasattr(kind, "model_fields"):
        return [field.annotation for field in kind.model_fields.values()]
    if dataclasses.is_dataclass(kind) or hasattr(kind, "__annotations__"):
        try:
            return list(typing.get_type_hints(kind).values())
        except Exception:  # any code may run in an annotation
            return []
    return []


def value_of(form: Any, known: KnownClasses, depth: int = 0) -> Any:
    """Return the value of a form; an object of a class that is not known becomes plain data.

    Raises:
        UnreadableForm: it is no form, or is nested too deeply.
    """
    if type(form) in _PLAIN:
        return form
    kind, inside = _entry(form, depth)
    try:
        if kind in _SEQUENCES:
            _require_cheap(kind, inside)
            return _SEQUENCES[kind]([value_of(item, known, depth + 1) for item in inside])
        if kind == "dict":
            return {value_of(key, known, depth + 1): value_of(item, known, depth + 1) for key, item in inside}
        if kind in _OBJECTS:
            return _OBJECTS[kind](inside, known, depth + 1)
        return _scalar(kind, inside)
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError, IndexError) as error:
        if isinstance(error, UnreadableForm):
            raise
        raise UnreadableForm(f"a {kind} cannot be made of a {type(inside).__name__}") from error


def _require_cheap(kind: str, inside: Any) -> None:
    """Refuse a large set of numbers: chosen ones make it cost their number squared."""
    if kind in ("set", "frozenset") and len(inside) > NUMBERS_MOST and any(type(item) is not str for item in inside):
        raise UnreadableForm(f"a set has over {NUMBERS_MOST:,} members that are no text")


def plain_of(form: Any, depth: int = 0) -> Any:
    """Return the data in a form, without its classes: what a type that its schema describes is validated from.

    Raises:
        UnreadableForm: as `value_of`.
    """
    return value_of(form, _NOTHING, depth)


def _entry(form: Any, depth: int) -> tuple[str, Any]:
    if not isinstance(form, Mapping) or len(form) != 1 or depth > DEPTH_MOST:
        raise UnreadableForm(f"a {type(form).__name__} is no form of a value")
    ((kind, inside),) = form.items()
    return kind, inside


def _scalar(kind: str, inside: Any) -> Any:
    if kind in ("json", "data"):
        return inside
    if kind == "text":
        return inside.decode("utf-8", "surrogatepass")
    if kind == "int":
        return int(inside, 16)
    if kind == "scalar":
        return _SCALARS[inside[0]](inside[1])
    raise UnreadableForm(f"{kind!r} is no kind of value")


# --- objects ------------------------------------------------------------------------------------------------------


def _enum(inside: Any, known: KnownClasses, depth: int) -> Any:
    kind, (_, name, plain) = known.get(inside[0]), inside
    return plain if kind is None or not issubclass(kind, enum.Enum) else kind[name]


def _model(inside: Any, known: KnownClasses, depth: int) -> Any:
    name, members, given, extra, private = inside
    values = _values(members, known, depth)
    kind = known.get(name)
    if not hasattr(kind, "model_fields"):
        return values["root"] if set(values) == {"root"} else values | _values(extra or {}, known, depth)
    missing = kind.model_fields.keys() - values.keys()
    if missing or values.keys() - kind.model_fields.keys():
        raise UnreadableForm(f"a {kind.__name__} has other members")
    made = kind.__new__(kind)
    put = object.__setattr__
    fields = kind.model_fields
    typed = {each: _as_member(members[each], values[each], fields[each].annotation) for each in fields}
    put(made, "__dict__", typed)
    put(made, "__pydantic_fields_set__", {str(member) for member in given})
    if getattr(kind, "__pydantic_root_model__", False):  # it has no room for these
        return made
    put(made, "__pydantic_extra__", None if extra is None else _values(extra, known, depth))
    put(made, "__pydantic_private__", None if private is None else _values(private, known, depth))
    return made


def _record(inside: Any, known: KnownClasses, depth: int) -> Any:
    kind, values = known.get(inside[0]), _values(inside[1], known, depth)
    if not dataclasses.is_dataclass(kind) or not isinstance(kind, type):
        return values
    made, hints = object.__new__(kind), typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        value = _as_member(inside[1][field.name], values[field.name], hints[field.name])
        object.__setattr__(made, field.name, value)
    return made


def _as_member(form: Any, value: Any, annotation: Any) -> Any:
    """Return a member; of one that came as JSON (a URL, say) pydantic makes the type again."""
    if not holds_json(form):
        return value
    from pydantic import TypeAdapter

    return TypeAdapter(annotation).validate_python(value)


def holds_json(form: Any) -> bool:
    """Whether some part of a value came as JSON alone, because its class has no form of its own."""
    if not isinstance(form, Mapping):
        return isinstance(form, list) and any(map(holds_json, form))
    return "json" in form or any(holds_json(part) for kind, part in form.items() if kind != "data")


def _row(inside: Any, known: KnownClasses, depth: int) -> Any:
    kind, values = known.get(inside[0]), [value_of(item, known, depth) for item in inside[1]]
    is_row = isinstance(kind, type) and issubclass(kind, tuple)
    return tuple.__new__(kind, values) if is_row else tuple(values)


def _dspy(inside: Any, known: KnownClasses, depth: int) -> Any:
    from ..types import content
    from ..types.citations import Citation
    from ..types.tool_calls import ToolCall, ToolCallResult

    name, members = inside[0], _values(inside[1], known, depth)
    inner: Any = {
        "ToolCalls.ToolCall": ToolCall,
        "ToolCallResults.ToolCallResult": ToolCallResult,
        "Citations.Citation": Citation,
    }.get(name)
    if inner is None and name.startswith("Code["):
        inner = content.code_of(name[len("Code['") : -len("']")])
    kind = content.by_name(name) if inner is None else inner
    # Not validated again: a fence in code would be taken off twice. Every member of these is a text or a list.
    made: Any = kind
    return made.model_construct(**members)


def _prediction(inside: Any, known: KnownClasses, depth: int) -> Any:
    values = _values(inside, known, depth)
    return Prediction(values, route="python") if known.are_open else values


def _values(forms: Any, known: KnownClasses, depth: int) -> dict[str, Any]:
    return {str(name): value_of(form, known, depth) for name, form in forms.items()}


_OBJECTS: Final[dict[str, Callable[[Any, KnownClasses, int], Any]]] = {
    "enum": _enum,
    "model": _model,
    "record": _record,
    "row": _row,
    "dspy": _dspy,
    "prediction": _prediction,
}
_NOTHING: Final = KnownClasses(None)
