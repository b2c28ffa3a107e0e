"""Build the request for a call or a stream from its caller's options, and read it in the service. Pure.

The service passes the arguments of a command on to its worker as the bytes that the client sent, and the worker's
values to the client likewise.
"""

from __future__ import annotations

from typing import Any, Final, TypedDict, Unpack

from dspex_worker.wire import Packed

from .. import spans
from ..errors import InvalidInput, UnknownName
from .request_fields import Fields


class StreamRequestOptions(TypedDict, total=False):
    """What the caller of a stream may choose."""

    session: str | None
    shared: bool  # the session is one that all clients may use
    timeout: float | None  # seconds, the wait in the queue included; None: the pool's call_timeout
    lm: str | None  # the service's language model of this name or model, "default" for its own, as the argument `lm`
    callbacks: list[str] | None  # which callbacks come back to this client
    own_lms: list[str] | None  # the refs of this client's own language models, which it asks itself
    within: int | None  # the callback of the service that this call is made for
    notes: bool  # whether the answer says where it ran and what it spent


class CallRequestOptions(StreamRequestOptions, total=False):
    """What the caller of a command may choose."""

    idempotent: bool  # it may run once more if its worker dies


STREAM_OPTIONS: Final = frozenset(StreamRequestOptions.__annotations__)
CALL_OPTIONS: Final = STREAM_OPTIONS | CallRequestOptions.__annotations__.keys()


def call_request(
    pool: str, command: str, arguments: dict[str, Any] | None, **options: Unpack[CallRequestOptions]
) -> Fields:
    """Return the fields of a call.

    Raises:
        UnknownName: there is no such option.
    """
    return _request(pool, command, arguments, options, CALL_OPTIONS)


def stream_request(
    pool: str, command: str, arguments: dict[str, Any] | None, **options: Unpack[StreamRequestOptions]
) -> Fields:
    """Return the fields of a stream.

    Raises:
        UnknownName: there is no such option.
    """
    return _request(pool, command, arguments, options, STREAM_OPTIONS)


def events_request(*, follow: bool, recent: int | None) -> Fields:
    """Return the fields of a request for events."""
    return {"follow": follow} if recent is None else {"follow": follow, "recent": recent}


def logs_request(pool: str | None, worker: int | None, *, follow: bool, recent: int | None) -> Fields:
    """Return the fields of a request for lines of the log."""
    return {"pool": pool, "worker": worker, **events_request(follow=follow, recent=recent)}


def arguments_of(fields: Fields) -> dict[str, Any] | Packed:
    """Return what a request gives to its command, as `protocol.read_request` left it.

    Raises:
        InvalidInput: it is no mapping.
    """
    value = fields.get("arguments")
    if value is not None and not isinstance(value, dict | Packed):
        raise InvalidInput(f"arguments must be a mapping, not {type(value).__name__}.", field="arguments")
    return {} if value is None else value


# ======================================================================================================================


def _request(
    pool: str, command: str, arguments: dict[str, Any] | None, options: StreamRequestOptions, known: frozenset[str]
) -> Fields:
    for name in options:
        if name not in known:
            raise UnknownName("option", name, known)
    given = {name: value for name, value in options.items() if value is not None and value is not False}
    if spans.source is not None and (carried := spans.source.carried()):
        given["traceparent"] = carried
    if "session" not in given:
        given.pop("shared", None)
    return {"pool": pool, "command": command, "arguments": {} if arguments is None else arguments, **given}
