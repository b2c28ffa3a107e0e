"""Describe exceptions for the wire: plain text and facts, bounded; no object of the worker crosses as itself."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from typing import Any

from .failure import Cancelled, Failure
from .wire import OverLimit, Unencodable, encode

MESSAGE_LIMIT = 8 * 1024
TRACEBACK_LIMIT = 64 * 1024
NAME_LIMIT = 500
FACTS_LIMIT = 4 * 1024 * 1024  # bytes of all facts; each beyond it is cut


def describe(error: BaseException, secrets: Iterable[str] = ()) -> dict[str, Any]:
    """Return {kind, type, message, traceback, facts}; `kind` is the supervisor's class for it, or None.

    It can be sent, whatever the exception is, and shows none of `secrets`.
    """
    try:
        kind, facts = _classify(error)
    except AttributeError:  # a Failure of a class whose __init__ does not call Failure's
        kind, facts = None, {}
    return {
        "kind": None if kind is None else _clean(str(kind), NAME_LIMIT),
        "type": _clean(_type_name(error), NAME_LIMIT),
        "message": _clean(without(_message(error), secrets), MESSAGE_LIMIT),
        "traceback": _clean(without(_traceback(error), secrets), TRACEBACK_LIMIT),
        "facts": _sendable({name: _without(value, secrets) for name, value in facts.items()}),
    }


def without(text: str, secrets: Iterable[str]) -> str:
    """Return the text, each of `secrets` replaced."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "[key]")
    return text


def _without(value: object, secrets: Iterable[str]) -> object:
    return without(value, secrets) if isinstance(value, str) else value


def _classify(error: BaseException) -> tuple[str | None, dict[str, Any]]:
    match error:
        case Failure():
            return error.kind, error.facts
        case Cancelled():
            return "CallCancelled", {}
        case Unencodable():
            return "EncodeError", {"path": error.path, "type": error.type_name, "reason": error.reason}
        case OverLimit():
            return "FrameTooLarge", {"limit": error.limit, "actual": error.actual, "what": error.what}
    return None, {}


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as worse:  # a user's __str__ may raise anything, and the reply must go out all the same
        return f"<its text could not be made: {type(worse).__name__}>"


def _traceback(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except BaseException as worse:  # as above: __str__ of a cause, a source file that cannot be read
        return f"<its traceback could not be made: {type(worse).__name__}>"


def _clean(text: str, limit: int) -> str:
    """Valid Unicode, cut in the middle: the beginning and the end of an error say the most."""
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]}\n[... {len(text) - limit:,} characters left out ...]\n{text[-limit // 2 :]}"


def _sendable(facts: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    room = FACTS_LIMIT
    for key, value in facts.items():
        name = _clean(str(key), NAME_LIMIT)
        size = _size(value)
        if size is None or size > room:
            kept[name] = _shown(value)
        else:
            kept[name] = value
            room -= size
    return kept


def _size(value: object) -> int | None:
    """Return its bytes on the wire; None if it cannot be sent, or if somebody changes it meanwhile."""
    try:
        return len(encode(value))
    except Exception:  # also RuntimeError, if another thread changes it meanwhile
        return None


def _shown(value: object) -> str:
    try:
        return _clean(value if isinstance(value, str) else repr(value), MESSAGE_LIMIT)
    except Exception as worse:  # as in `_message`
        return f"<it could not be shown: {type(worse).__name__}>"
