"""Write outputs so that the host can make the very values again: plain data that says of what it was made. Pure.

A form is None, a bool, an int of 64 bits, a float, a valid text or bytes, which stand for themselves, or a map with one
entry: {"data": plain}, {"int": hexadecimal digits}, {"text": bytes}, {"list" | "tuple" | "set" | "frozenset": [forms]},
{"dict": [[form, form], ...]}, {"enum": [class, member, plain value]}, {"model": [class, {name: form}, names that were
set, {extra: form} | None, {private: form} | None]}, {"record": [class, {name: form}]} for a dataclass,
{"row": [class, [forms]]} for a named tuple, {"prediction": {name: form}}, {"dspy": [name, {member: form}]},
{"scalar": [kind, text]} and {"json": plain} for everything else. A class is {module:qualified name}: the host looks it
up among those that it knows.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import pathlib
import uuid
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import dspy
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from ...types.type_names import DSPY_TYPES
from ...wire.codec import is_unicode
from .wire_values import to_wire

_PLAIN = frozenset({type(None), bool, float, bytes})
_SEQUENCES = {list: "list", tuple: "tuple", set: "set", frozenset: "frozenset"}
_SCALARS: dict[Any, Callable[[Any], str]] = {
    datetime.datetime: datetime.datetime.isoformat,
    datetime.date: datetime.date.isoformat,
    datetime.time: datetime.time.isoformat,
    datetime.timedelta: lambda span: f"{span.days},{span.seconds},{span.microseconds}",
    decimal.Decimal: str,
    uuid.UUID: str,
    complex: str,
    pathlib.PosixPath: str,
}
_BASES: tuple[Any, ...] = (str, int, float, bytes)
DEPTH_MOST = 100


def exact(value: Any, depth: int = 0) -> Any:
    """Return the form of a value.

    Raises:
        ValueError: it is nested too deeply, or within itself, or has no form.
    """
    kind: Any = type(value)
    if kind in _PLAIN:
        return value
    if kind is str:
        return value if is_unicode(value) else {"text": value.encode("utf-8", "surrogatepass")}
    if kind is int:
        return value if -(2**63) <= value < 2**64 else {"int": hex(value)}
    if depth > DEPTH_MOST:
        raise ValueError(f"an output is nested over {DEPTH_MOST} levels deep")
    if (kind is list or kind is dict) and _is_plain(value):
        return {"data": value}
    if kind in _SEQUENCES:
        return {_SEQUENCES[kind]: [exact(item, depth + 1) for item in value]}
    if kind is dict:
        return {"dict": [[exact(key, depth + 1), exact(item, depth + 1)] for key, item in value.items()]}
    if kind in _SCALARS:
        return {"scalar": [_scalar_name(value, kind), _SCALARS[kind](value)]}
    return _object(value, kind, depth + 1)


def split(outputs: Mapping[str, Any], is_exact: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return outputs as plain data, with None for what is more, and the exact forms of the latter.

    Raises:
        ValueError: as `exact`.
    """
    if not is_exact:
        return cleaned(to_wire(outputs)), {}
    try:
        forms = {str(name): exact(value) for name, value in outputs.items()}
    except RecursionError:
        raise ValueError("an output is nested too deeply") from None
    plain = {name: _plain_of(form) for name, form in forms.items()}
    objects = {name: form for name, form in forms.items() if plain[name] is None and form is not None}
    return plain, objects


def _plain_of(form: Any) -> Any:
    """Return the data that a form stands for; None for an object."""
    if not isinstance(form, dict):
        return form
    return form.get("data")


def _scalar_name(value: Any, kind: Any) -> str:
    """Return the kind, with pydantic's own time zone told from Python's: they are equal, and not the same."""
    is_pydantics = type(getattr(value, "tzinfo", None)).__module__.startswith("pydantic_core")
    return f"pydantic {kind.__name__}" if is_pydantics else str(kind.__name__)


def _object(value: Any, kind: type, depth: int) -> Any:
    if isinstance(value, Enum):
        return {"enum": [_name(kind), value.name, _json(value.value)]}
    if isinstance(value, BaseModel):
        name = _dspy_name(kind)
        return _model(value, kind, depth) if name is None else {"dspy": [name, _members(value, depth)]}
    if dataclasses.is_dataclass(value):
        given = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {"record": [_name(kind), _forms(given, depth)]}
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return {"row": [_name(kind), [exact(item, depth) for item in value]]}
    if isinstance(value, dspy.Example):  # and so a dspy.Prediction
        return {"prediction": _forms({str(name): item for name, item in value.items()}, depth)}
    if isinstance(value, Mapping):
        return exact(dict(value.items()), depth)
    if isinstance(value, list | tuple | set | frozenset):
        base = next(base for base in _SEQUENCES if isinstance(value, base))
        return exact(base(value), depth)
    for base in _BASES:
        if isinstance(value, base):
            return exact(base(value), depth)
    if hasattr(value, "tolist"):  # numpy's arrays and numbers
        return exact(value.tolist(), depth)
    return {"json": _json(value)}


def _model(value: BaseModel, kind: type, depth: int) -> Any:
    extra, private = value.__pydantic_extra__, value.__pydantic_private__
    return {
        "model": [
            _name(kind),
            _members(value, depth),
            sorted(value.model_fields_set),
            None if extra is None else _forms(extra, depth),
            None if private is None else _forms(private, depth),
        ]
    }


def _members(value: BaseModel, depth: int) -> dict[str, Any]:
    held = vars(value)
    return _forms({name: held[name] for name in type(value).model_fields if name in held}, depth)


def _forms(values: Mapping[str, Any], depth: int) -> dict[str, Any]:
    return {name: exact(item, depth) for name, item in values.items()}


def _dspy_name(kind: type) -> str | None:
    """Return what DSPy calls a type of its own; None for a user's."""
    if not kind.__module__.startswith("dspy."):
        return f"Code[{getattr(kind, 'language', '')!r}]" if issubclass(kind, dspy.Code) else None
    name = kind.__qualname__
    return name if name.partition(".")[0] in DSPY_TYPES else None


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _json(value: Any) -> Any:
    """Return what JSON would hold: the host validates it by the type that it knows, or takes it as it is."""
    return cleaned(to_jsonable_python(value))


def cleaned(plain: Any) -> Any:
    """Return plain data that any message can hold: without half surrogate pairs and integers over 64 bits."""
    if type(plain) is str:
        return plain if is_unicode(plain) else plain.encode("utf-8", "replace").decode()
    if type(plain) is int:
        return plain if -(2**63) <= plain < 2**64 else str(plain)
    if type(plain) is list:
        return [cleaned(item) for item in plain]
    if type(plain) is dict:
        return {cleaned(str(key)): cleaned(item) for key, item in plain.items()}
    return plain


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind is str:
        return is_unicode(value)
    if kind is int:
        return bool(-(2**63) <= value < 2**64)
    if kind is list:
        return all(map(_is_plain, value))
    if kind is dict:
        return all(type(key) is str and is_unicode(key) for key in value) and all(map(_is_plain, value.values()))
    return kind in _PLAIN
