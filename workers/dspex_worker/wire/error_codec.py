"""Encode exceptions as plain, bounded data, and decode them: for worker pipes and the control socket. Pure.

A description is {kind, type, message, traceback, facts}: `kind` is the name of the receiver's own class, or None, and
`type` is the name of the exception's class. `typed` may follow, with facts whose Python types the wire lacks (tuples,
nested exceptions), and `cause`, a description. A side says by `classify` which facts its own exceptions have; which
class stands for a description is the receiver's decision, and nothing is ever imported or called by name.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from .codec import encode

NAME_MOST: Final = 2_000  # characters of a class's name, a path or a reason that somebody else gave
MESSAGE_MOST: Final = 64 * 1024
TRACEBACK_MOST: Final = 128 * 1024
TEXT_MOST: Final = 64 * 1024  # of one text among typed facts
_OWN_NAME_MOST: Final = 500
_SHOWN_MOST: Final = 8 * 1024  # of a fact that cannot be sent, as text
_DEPTH_MOST: Final = 6  # errors within errors, containers within typed facts


class KnownError(NamedTuple):
    """A side's facts about an exception: the receiver's class for it, its facts, and its text if `str` is not it."""

    kind: str | None = None
    facts: Mapping[str, Any] = {}
    message: str | None = None
    has_traceback: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorEncoder:
    """Describes exceptions for one kind of receiver; the numbers are characters, those of all facts bytes."""

    classify: Callable[[BaseException], KnownError]
    message: int = 8 * 1024
    traceback: int = 0  # none
    text: int = 4 * 1024 * 1024
    facts: int = 4 * 1024 * 1024
    keeps_types: bool = False  # also of causes

    def describe(self, error: BaseException, secrets: Iterable[str] = (), *, depth: int = 0) -> dict[str, Any]:
        """Return the description of `error`; it can be sent, whatever the exception is, and shows no secret."""
        try:
            known = self.classify(error)
        except AttributeError:  # an exception whose __init__ does not call its base's
            known = KnownError()
        message = text_of(error) if known.message is None else known.message
        has_traceback = self.traceback and known.has_traceback
        described = {
            "kind": None if known.kind is None else clip(str(known.kind), _OWN_NAME_MOST),
            "type": clip(_type_name(error), _OWN_NAME_MOST),
            "message": clip(without(message, secrets), self.message),
            "traceback": clip(without(_traceback_of(error), secrets), self.traceback) if has_traceback else "",
            **self._facts(known.facts, secrets, depth),
        }
        if self.keeps_types and error.__cause__ is not None and depth < _DEPTH_MOST:
            described["cause"] = self.describe(error.__cause__, secrets, depth=depth + 1)
        return described

    def _facts(self, given: Mapping[str, Any], secrets: Iterable[str], depth: int) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        typed: dict[str, Any] = {}
        room: float = self.facts
        for key, value in dict(given).items():
            name = clip(str(key), _OWN_NAME_MOST)
            value = clip(without(value, secrets), self.text) if isinstance(value, str) else value
            if (size := _size(value)) <= room:
                facts[name] = value
            elif (size := _size(packed := self._packed(value, depth))) <= room:
                typed[name] = packed
            else:
                facts[name], size = _shown(value), 0
            room -= size
        return {"facts": facts, "typed": typed} if typed else {"facts": facts}

    def _packed(self, value: Any, depth: int) -> object:
        """The value marked with its types; what cannot be sent, if it has no such form."""
        try:
            return self._pack(value, depth + 1) if self.keeps_types else NotImplemented
        except Exception:  # also RuntimeError, if another thread changes it meanwhile
            return NotImplemented

    def _pack(self, value: Any, depth: int) -> dict[str, Any]:
        if depth <= _DEPTH_MOST:
            if isinstance(value, BaseException):
                return {"error": self.describe(value, depth=depth)}
            if type(value) is tuple:
                return {"tuple": [self._pack(item, depth + 1) for item in value]}
            if type(value) is list:
                return {"list": [self._pack(item, depth + 1) for item in value]}
            if isinstance(value, Mapping):
                return {"dict": {str(key): self._pack(item, depth + 1) for key, item in value.items()}}
        return {"value": plain(value)}


class ErrorDescription(NamedTuple):
    """A description as it was received: every part of its type, every text bounded."""

    kind: str = ""
    type: str = ""
    message: str = ""
    traceback: str = ""
    facts: dict[str, Any] = {}  # noqa: RUF012 - of a description that is none
    cause: Any = None  # what the description was read with built

    @property
    def name(self) -> str:
        """The best name that it gives the exception."""
        return self.kind or self.type or "Exception"


Build = Callable[[ErrorDescription], Any]


def read(described: object, build: Build | None = None, *, message_most: int = MESSAGE_MOST) -> ErrorDescription:
    """Return a checked description; whatever it holds, this raises nothing.

    Typed facts and causes are read with `build` only, which makes exceptions of the nested descriptions.
    """
    given = described if isinstance(described, dict) else {}
    facts, typed, cause = given.get("facts"), given.get("typed"), given.get("cause")
    found = facts if isinstance(facts, dict) else {}
    if build is not None and isinstance(typed, dict):
        found = found | {name: _unpack(value, build) for name, value in typed.items()}
    return ErrorDescription(
        kind=bounded(given.get("kind"), NAME_MOST),
        type=bounded(given.get("type"), NAME_MOST),
        message=bounded(given.get("message"), message_most),
        traceback=bounded(given.get("traceback"), TRACEBACK_MOST),
        facts=found,
        cause=build(read(cause, build)) if build is not None and isinstance(cause, dict) else None,
    )


def instance(found: type[BaseException], message: str) -> BaseException:
    """Return an exception of this class with this text, its constructor passed by, which would ask for facts."""
    is_layout_own = issubclass(found, OSError | ImportError)  # these carry fields of C beside the plain exception's
    error = found.__new__(found, message) if is_layout_own else Exception.__new__(found, message)
    if isinstance(error, ImportError):
        ImportError.__init__(error, message)
    error.args = (message,)
    return error


def plain(value: Any, depth: int = 0) -> Any:
    """Return `value` as wire values, for facts that are only read: anything unknown becomes its `repr`."""
    if isinstance(value, str):
        return clip(str(value), TEXT_MOST)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float | bytes):
        return float(value) if isinstance(value, float) else bytes(value)
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**64 else str(value)
    if depth < _DEPTH_MOST and isinstance(value, Mapping):
        return {clip(str(key), TEXT_MOST): plain(item, depth + 1) for key, item in value.items()}
    if depth < _DEPTH_MOST and isinstance(value, list | tuple | set | frozenset):
        return [plain(item, depth + 1) for item in value]
    return clip(repr(value), TEXT_MOST)


def bounded(value: object, most: int) -> str:
    """Return a text that somebody gave, no longer than `most` characters; what is none is named by its type."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else str(value) if isinstance(value, bool | int | float) else ""
    return text[:most] if text or isinstance(value, str) else f"<{type(value).__name__}>"


def clip(text: str, most: int) -> str:
    """Return valid Unicode, cut in the middle: the beginning and the end of an error say the most."""
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) <= most:
        return text
    note = f"\n[... {len(text) - most:,} characters left out ...]\n"
    half = max(0, most - len(note)) // 2
    return text[:half] + note + text[len(text) - half :]


def without(text: str, secrets: Iterable[str]) -> str:
    """Return the text, each of `secrets` replaced."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "[key]")
    return text


def text_of(error: BaseException) -> str:
    """Return `str(error)`; a user's own `__str__` may raise anything, and the answer must be sent."""
    try:
        return str(error)
    except BaseException as worse:  # __str__ is anybody's code, and this text is a report, not its caller
        return f"<its text could not be made: {type(worse).__name__}>"


def _traceback_of(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except BaseException as worse:  # as above: __str__ of a cause, a source file that cannot be read
        return f"<its traceback could not be made: {type(worse).__name__}>"


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _size(value: object) -> float:
    """Its bytes on the wire; infinite if it cannot be sent, or if another thread changes it meanwhile."""
    try:
        return len(encode(value))
    except Exception:  # an object of the user's may raise anything while it is read
        return math.inf


def _shown(value: object) -> str:
    try:
        return clip(value if isinstance(value, str) else repr(value), _SHOWN_MOST)
    except Exception as worse:  # as in `text_of`
        return f"<it could not be shown: {type(worse).__name__}>"


def _unpack(value: Any, build: Build) -> Any:
    match value:
        case {"error": dict() as described}:
            return build(read(described, build))
        case {"tuple": list() as items}:
            return tuple(_unpack(item, build) for item in items)
        case {"list": list() as items}:
            return [_unpack(item, build) for item in items]
        case {"dict": dict() as items}:
            return {key: _unpack(item, build) for key, item in items.items()}
        case {"value": plain_value}:
            return plain_value
        case _:
            return None
