"""Describe exceptions for the wire: text and facts, bounded; no object of the worker crosses as itself."""

from __future__ import annotations

from .failure import Cancelled, Failure
from .wire import OverLimit, Unencodable
from .wire.error_codec import ErrorEncoder, Known


def _classify(error: BaseException) -> Known:
    """Name the supervisor's class for an exception, where it has one."""
    match error:
        case Failure():
            return Known(error.kind, error.facts)
        case Cancelled():
            return Known("CallCancelled")
        case Unencodable():
            return Known("EncodeError", {"path": error.path, "type": error.type_name, "reason": error.reason})
        case OverLimit():
            return Known("FrameTooLarge", {"limit": error.limit, "actual": error.actual, "what": error.what})
        case _:
            return Known()


describe = ErrorEncoder(classify=_classify, traceback=64 * 1024).describe
