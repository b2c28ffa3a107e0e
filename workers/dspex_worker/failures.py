"""Describing an exception for the wire: plain text and facts, bounded; no object of the worker crosses as itself."""

from __future__ import annotations

import traceback
from typing import Any

from .bridge import Cancelled, Failure
from .sessions import SessionStateTooLarge
from .wire import OverLimit, Unencodable, encode

MESSAGE_LIMIT = 8 * 1024
TRACEBACK_LIMIT = 64 * 1024


def describe(error: BaseException) -> dict[str, Any]:
    """Give {kind, type, message, traceback, facts}; `kind` is the supervisor's class for it, or None."""
    kind, facts = _classify(error)
    return {
        "kind": kind,
        "type": _type_name(error),
        "message": _clean(_message(error), MESSAGE_LIMIT),
        "traceback": _clean(_traceback(error), TRACEBACK_LIMIT),
        "facts": _sendable(facts),
    }


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
        case SessionStateTooLarge():
            return "SessionStateTooLarge", {}
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
    for key, value in facts.items():
        try:
            encode(value)
            kept[key] = value
        except (Unencodable, OverLimit):
            kept[key] = _clean(repr(value), MESSAGE_LIMIT)
    return kept
