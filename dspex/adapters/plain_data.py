"""Make values plain: None, bool, int of 64 bits, float, str, bytes, list, and dict with str keys."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final

from ..errors import EncodeError
from ..signatures.annotations import is_dspy_type
from ..types.dspy_objects import is_instance
from ..types.example import Example
from ..types.prediction import Prediction

_EXACT: Final = frozenset({type(None), bool, float, str, bytes})


def is_plain(value: Any) -> bool:
    """Whether the value is plain already, all the way down."""
    kind = type(value)
    if kind is str:
        return value.isascii() or _is_unicode(value)
    if kind in _EXACT:
        return True
    if kind is int:
        return bool(-(2**63) <= value < 2**64)
    if kind is list:
        return all(map(is_plain, value))
    if kind is dict:
        return all(type(key) is str and is_plain(key) for key in value) and all(map(is_plain, value.values()))
    return False


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which no message can hold
        return False
    return True


def is_json(value: Any) -> bool:
    """Whether the value is plain and without bytes: specs are named by the digest of their JSON."""
    kind = type(value)
    if kind is list:
        return all(map(is_json, value))
    if kind is dict:
        return all(type(key) is str for key in value) and all(map(is_json, value.values()))
    return kind is not bytes and is_plain(value)


def holds_dspy_type(value: Any) -> bool:
    """Whether a value of DSPy's types is among the items, at any depth: its plain form would be read as plain data."""
    if isinstance(value, Mapping):
        return any(map(holds_dspy_type, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(holds_dspy_type, value))
    return is_dspy_type(type(value))


def to_wire(value: Any, path: str = "value") -> Any:
    """Return the value made plain: models and enums as their JSON, tuples and sets as lists, keys as text.

    Raises:
        EncodeError: a part has no such form; `path` leads to it.
    """
    kind = type(value)
    if kind in _EXACT:
        return value
    if kind is int:
        return _within_64_bits(value, path)
    if kind is list or kind is tuple or kind is set or kind is frozenset:
        return [to_wire(item, f"{path}[{at}]") for at, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {_key(key, path): to_wire(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, enum.Enum):
        return to_wire(value.value, path)
    if is_dspy_type(kind):
        return to_wire(value.to_wire() if hasattr(value, "to_wire") else dict(value), path)
    if isinstance(value, Prediction | Example) or is_instance(value, "Example"):
        return to_wire(dict(value.items()), path)
    return _by_base(value, path) if isinstance(value, _BASES) else _by_pydantic(value, path)


def demo_to_wire(value: Any, path: str) -> Any:
    """Return a demo as plain data: values of DSPy's types as prompts show them, which is how DSPy itself saves demos.

    Raises:
        EncodeError: as `to_wire`.
    """
    if isinstance(value, Mapping):
        return {_key(key, path): demo_to_wire(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [demo_to_wire(item, f"{path}[{at}]") for at, item in enumerate(value)]
    return to_wire(value.serialize_model() if hasattr(value, "serialize_model") else value, path)


_BASES: Final[tuple[Any, ...]] = (str, int, float, bytes, list, tuple, set, frozenset)


def _by_base(value: Any, path: str) -> Any:
    """Return a value of a class below a plain one as the plain one: a Markup as text, a np.float64 as a number."""
    base: Any = next(base for base in _BASES if isinstance(value, base))
    return to_wire(base(value), path)


def _within_64_bits(value: int, path: str) -> int:
    if -(2**63) <= value < 2**64:
        return value
    raise EncodeError(path, "int", "it needs more than 64 bits")


def _key(key: Any, path: str) -> str:
    if type(key) is str:
        return key
    plain = to_wire(key, f"a key of {path}")
    if isinstance(plain, bool) or plain is None:
        return {True: "true", False: "false", None: "None"}[plain]  # what pydantic makes of such keys in JSON
    if isinstance(plain, str | int | float):
        return str(plain)
    raise EncodeError(f"a key of {path}", type(key).__name__)


def _by_pydantic(value: Any, path: str) -> Any:
    from pydantic import TypeAdapter

    kind: Any = type(value)
    try:
        plain = TypeAdapter(kind).dump_python(value, mode="json")
    except Exception as error:  # pydantic raises several kinds; each means that the value has no JSON form
        raise EncodeError(path, kind.__name__) from error
    if type(plain) is kind:
        raise EncodeError(path, kind.__name__)
    return to_wire(plain, path)
