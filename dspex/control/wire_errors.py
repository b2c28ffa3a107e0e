"""Carrying errors over the control socket: class, message and facts there, the same exception here. Pure.

An error is described by its class's name, its message and its attributes, and rebuilt without its constructor, so that
every class of `dspex.errors` crosses whole, also one that is added later. Tuples and nested errors (a pipeline's
`causes`, a `__cause__`) are marked, because the codec has neither. A class that this side does not know becomes a
RemoteError; nothing is ever imported or called by name.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from typing import Any

from .. import errors
from ..errors import DspexError, RemoteError

MAX_TEXT = 64 * 1024  # characters of one text: a traceback or a stderr tail
MAX_DEPTH = 6  # errors within errors, containers within facts

Described = dict[str, Any]


def describe(error: BaseException, *, depth: int = 0) -> Described:
    """Give what the other side rebuilds the error from: wire values only."""
    described: Described = {
        "class": type(error).__name__,
        "is_ours": isinstance(error, DspexError),
        "message": _clip(_message(error)),
        "facts": {key: _pack(value, depth + 1) for key, value in vars(error).items()},
    }
    if error.__cause__ is not None and depth < MAX_DEPTH:
        described["cause"] = describe(error.__cause__, depth=depth + 1)
    return described


def rebuild(described: Mapping[str, Any]) -> BaseException:
    """Give the exception that `describe` was given; whatever the description holds, an exception comes out."""
    name, message = str(described.get("class", "Exception")), str(described.get("message", ""))
    found = _class_of(name, is_ours=described.get("is_ours") is True)
    error = RemoteError(name, message, where="the supervisor") if found is None else _bare(found, message)
    facts = described.get("facts")
    if found is not None and isinstance(facts, dict):
        for key, value in facts.items():
            setattr(error, key, _unpack(value))
    cause = described.get("cause")
    if isinstance(cause, dict):
        error.__cause__ = rebuild(cause)
    return error


def plain(value: Any, depth: int = 0) -> Any:
    """Give `value` as wire values, for facts that are only read: anything unknown becomes its `repr`."""
    if isinstance(value, str):
        return _clip(str(value))
    if value is None or isinstance(value, bool | float | bytes):
        return value
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**64 else str(value)
    if depth < MAX_DEPTH and isinstance(value, Mapping):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if depth < MAX_DEPTH and isinstance(value, list | tuple | set | frozenset):
        return [plain(item, depth + 1) for item in value]
    return _clip(repr(value))


# ======================================================================================================================


def _message(error: BaseException) -> str:
    """What `str` gives of it, without the quotes that KeyError puts around its only argument."""
    if isinstance(error, KeyError) and not isinstance(error, DspexError) and len(error.args) == 1:
        return str(error.args[0])
    return str(error)


def _clip(text: str) -> str:
    text = text.encode(errors="replace").decode() if not text.isascii() else text  # lone surrogates cannot cross
    return text if len(text) <= MAX_TEXT else f"… {text[-MAX_TEXT:]}"


def _pack(value: Any, depth: int) -> Any:
    if isinstance(value, BaseException) and depth <= MAX_DEPTH:
        return {"error": describe(value, depth=depth)}
    if depth <= MAX_DEPTH and type(value) is tuple:
        return {"tuple": [_pack(item, depth + 1) for item in value]}
    if depth <= MAX_DEPTH and type(value) is list:
        return {"list": [_pack(item, depth + 1) for item in value]}
    if depth <= MAX_DEPTH and isinstance(value, Mapping):
        return {"dict": {str(key): _pack(item, depth + 1) for key, item in value.items()}}
    return plain(value)


def _unpack(value: Any) -> Any:
    match value:
        case {"error": dict() as described}:
            return rebuild(described)
        case {"tuple": list() as items}:
            return tuple(map(_unpack, items))
        case {"list": list() as items}:
            return list(map(_unpack, items))
        case {"dict": dict() as items}:
            return {key: _unpack(item) for key, item in items.items()}
    return value


def _class_of(name: str, *, is_ours: bool) -> type[Exception] | None:
    found = getattr(errors if is_ours else builtins, name, None)
    root = DspexError if is_ours else Exception
    return found if isinstance(found, type) and issubclass(found, root) else None


def _bare(found: type[Exception], message: str) -> Exception:
    """Give an instance with this message; a constructor of ours, which would ask for facts, is passed by."""
    if not issubclass(found, DspexError):
        try:
            return found(message)
        except TypeError:  # UnicodeDecodeError and its like need more
            return RemoteError(found.__name__, message, where="the supervisor")
    is_layout_own = issubclass(found, OSError | ImportError)  # these carry fields of C beside the plain exception's
    error = found.__new__(found, message) if is_layout_own else Exception.__new__(found, message)
    if isinstance(error, ImportError):
        ImportError.__init__(error, message)
    error.args = (message,)
    return error
