"""Describe exceptions for the wire: text and facts, bounded; no object of the worker crosses as itself."""

from __future__ import annotations

from .failure import Cancelled, Failure
from .wire import OverLimit, Unencodable
from .wire.error_codec import ErrorEncoder, KnownError, text_of


def _classify(error: BaseException) -> KnownError:
    """Return the supervisor's class for an exception, where it has one."""
    match error:
        case Failure():
            return KnownError(error.kind, error.facts)
        case Cancelled():
            return KnownError("CallCancelled")
        case Unencodable():
            return KnownError("EncodeError", {"path": error.path, "type": error.type_name, "reason": error.reason})
        case OverLimit():
            return KnownError("FrameTooLarge", {"limit": error.limit, "actual": error.actual, "what": error.what})
        case _:
            return KnownError(message=_noted(error))


def _noted(error: BaseException) -> str | None:
    """Return an exception's text with its notes (PEP 678), if it has any."""
    notes = [note for note in getattr(error, "__notes__", ()) if isinstance(note, str)]
    return f"{text_of(error)} ({'; '.join(notes)})" if notes else None


describe = ErrorEncoder(classify=_classify, traceback=64 * 1024).describe
