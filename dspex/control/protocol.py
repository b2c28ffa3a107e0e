"""The control protocol: the workers' frames and kinds, with a hello of its own.

    HELLO   client: [magic, major, minor, {pid, role, name, ...}]; service: [.., {client, name, pid, pools, lms, ...}]
    CALL    [id, verb, fields, {"credit": n} for a stream]: a request; ids are the client's own
    RESULT  [id, value, notes]; ERROR [id, error as in `error_messages`, notes]; id 0 refuses the whole connection
    CHUNK   [id, value], END [id, value, notes]: a stream; CREDIT [id, n]: the client can take n more chunks
    CANCEL  [id]: the client no longer wants it

The service asks too: CALL [id, callback, arguments, {"for": the client's request, "timeout", "credit"}], with ids of
its own, for what a client's call needs of the client (a tool, a metric). The same messages answer it, the other way.

docs/internals/control-protocol.md lists the verbs. Pure code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dspex_worker.wire import FRAME_LEAST, FRAME_LIMIT, FRAME_MOST, Malformed, Packed
from dspex_worker.wire.messages import PACKED_FROM, Kind, Message, argument_in, read, write, write_answer

__all__ = [
    "CLIENTS_ONLY",
    "CREDIT",
    "HELLO_LIMIT",
    "LIMIT",
    "MAGIC",
    "VERSION",
    "Kind",
    "Message",
    "Role",
    "Verb",
    "hello",
    "limit_in",
    "read",
    "read_request",
    "send",
    "send_value",
]

MAGIC: Final = "dspex-control"
VERSION: Final = (1, 2)  # a different major cannot talk; a different minor knows more verbs or facts
LIMIT_ENVELOPE: Final = 64 * 1024  # bytes: whatever fits a worker's frame fits here with its envelope
LIMIT: Final = FRAME_LIMIT + LIMIT_ENVELOPE  # until the service's HELLO has named another
HELLO_LIMIT: Final = 64 * 1024  # bytes that a stranger may announce
ENVELOPE: Final = 32  # containers and elements of a request beside its value: fewer than a worker's frame may have
CREDIT: Final = 16  # chunks that a stream may be ahead of its consumer


class Role:
    """The role of a client. An operator inspects and changes, makes no calls, and has a place reserved for it."""

    CLIENT: Final = "client"
    OPERATOR: Final = "operator"


class Verb:
    """The names of the requests."""

    STATUS: Final = "status"
    HEALTH: Final = "health"
    CALL: Final = "call"
    STREAM: Final = "stream"
    OPEN_SESSION: Final = "session.open"
    CLOSE_SESSION: Final = "session.close"
    RESIZE: Final = "resize"
    RECYCLE: Final = "recycle"
    DRAIN: Final = "drain"
    RESUME: Final = "resume"
    FORGIVE: Final = "forgive"
    STOP: Final = "stop"
    RESTART: Final = "restart"
    EVENTS: Final = "events"
    CALLS: Final = "calls"
    CANCEL_CALL: Final = "call.cancel"
    SESSIONS: Final = "sessions"
    CLIENTS: Final = "clients"
    STACKS: Final = "stacks"
    LOGS: Final = "logs"
    JOBS: Final = "jobs"
    START_JOB: Final = "job.start"
    JOB: Final = "job"
    JOB_EVENTS: Final = "job.events"
    JOB_PROGRAM: Final = "job.program"
    CANCEL_JOB: Final = "job.cancel"
    USAGE: Final = "usage"
    COMPLETE: Final = "lm.complete"
    STREAM_LM: Final = "lm.stream"
    EMBED: Final = "lm.embed"


FORWARDED: Final = frozenset((Verb.CALL, Verb.STREAM))  # their arguments go on to a worker
CLIENTS_ONLY: Final = frozenset((
    Verb.CALL, Verb.STREAM, Verb.OPEN_SESSION, Verb.CLOSE_SESSION, Verb.START_JOB, Verb.USAGE, Verb.COMPLETE,
    Verb.STREAM_LM, Verb.EMBED,
))  # fmt: skip


def limit_in(greeting: Mapping[str, Any]) -> int:
    """Return how many bytes a frame may have by the service's HELLO; an older service names none."""
    named = greeting.get("frame_limit")
    is_known = isinstance(named, int) and FRAME_LEAST <= named <= FRAME_MOST
    return (int(named) if named is not None and is_known else FRAME_LIMIT) + LIMIT_ENVELOPE


def send(kind: Kind, *fields: object, limit: int = LIMIT) -> bytes:
    """Return a message's frame.

    Raises:
        Unencodable, OverLimit: a field cannot be sent.
    """
    return write(kind, *fields, limit=limit)


def read_request(body: bytes) -> Message:
    """Decode a client's message; the arguments of a command stay packed if they are large.

    Decoding is also the check of what goes on to a worker: what passes here, the worker can decode.

    Raises:
        Malformed: it is not a message of this protocol.
    """
    message = read(body, envelope=ENVELOPE)
    is_forwarded = len(body) > PACKED_FROM and message[0] == Kind.CALL and message[2] in FORWARDED
    if is_forwarded and type(message[3].get("arguments")) is dict:
        message[3]["arguments"] = argument_in(body, "arguments")
    return message


def send_value(kind: Kind, id: int, value: object, notes: dict[str, Any] | None = None, *, limit: int = LIMIT) -> bytes:
    """Return the frame of a RESULT, CHUNK or END; a packed value is passed on as it is. A CHUNK has no notes.

    Raises:
        Unencodable, OverLimit: the value cannot be sent.
    """
    if isinstance(value, Packed):
        return write_answer(kind, id, value, notes, limit=limit)
    return send(kind, id, value, limit=limit) if kind == Kind.CHUNK else send(kind, id, value, notes, limit=limit)


def hello(message: Message) -> dict[str, Any]:
    """Return the facts of the other side's hello.

    Raises:
        Malformed: it is none, or speaks another major version.
    """
    if message[0] != Kind.HELLO or message[1] != MAGIC:
        raise Malformed("the first message is not a hello of the control protocol")
    if message[2] != VERSION[0]:
        raise Malformed(
            f"it speaks version {message[2]}.{message[3]} of the control protocol, this side {VERSION[0]}.{VERSION[1]}"
        )
    facts: dict[str, Any] = message[4]
    return facts
