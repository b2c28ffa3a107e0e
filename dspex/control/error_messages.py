"""Encode and rebuild exceptions in the control socket's ERROR messages: class, message and facts. Pure.

An exception is rebuilt without its constructor, so that every class of `dspex.errors` crosses whole, also one that is
added later. A class that this side does not know becomes a RemoteError.
"""

from __future__ import annotations

import builtins

from dspex_worker.wire.error_codec import TEXT_MOST, ErrorDescription, ErrorEncoder, KnownError, instance, read

from .. import errors
from ..errors import DspexError, RemoteError


def rebuild(described: object) -> BaseException:
    """Return the exception that `describe` was given; whatever the description holds, an exception comes out."""
    return _build(read(described, _build))


def _build(found: ErrorDescription) -> BaseException:
    cls = _class_of(errors, found.kind, DspexError) if found.kind else _class_of(builtins, found.type, Exception)
    error = None if cls is None else _make(cls, found.message)
    if error is None:
        error = RemoteError(found.name, found.message, traceback=found.traceback, where="the supervisor")
    else:
        vars(error).update(found.facts)
    error.__cause__ = found.cause
    return error


def _make(cls: type[BaseException], message: str) -> BaseException | None:
    if issubclass(cls, DspexError):
        return instance(cls, message)
    try:
        return cls(message)
    except TypeError:  # UnicodeDecodeError and its like need more
        return None


def _class_of(module: object, name: str, root: type[BaseException]) -> type[BaseException] | None:
    found = getattr(module, name, None)
    return found if isinstance(found, type) and issubclass(found, root) else None


def _classify(error: BaseException) -> KnownError:
    kind = type(error).__name__ if isinstance(error, DspexError) else None
    message = str(error.args[0]) if kind is None and isinstance(error, KeyError) and len(error.args) == 1 else None
    return KnownError(kind, vars(error), message)  # a KeyError's own text has quotes around it


describe = ErrorEncoder(classify=_classify, message=TEXT_MOST, text=TEXT_MOST, keeps_types=True).describe
