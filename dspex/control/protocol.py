"""What a client and the control service say to each other: the workers' frames and kinds, with a hello of their own.

    HELLO   client: [magic, major, minor, {pid, version}]; service: [.., {client, name, pid, version, timeouts}]
    CALL    [id, verb, arguments, {"credit": n} for a stream]: a request; ids are the client's own
    RESULT  [id, value, notes]; ERROR [id, error as in `crossing`, notes]; id 0 refuses the whole connection
    CHUNK   [id, value], END [id, value, notes]: a stream; CREDIT [id, n]: the client can take n more chunks
    CANCEL  [id]: the client no longer wants it

docs/internals/control-protocol.md lists the verbs. Pure code.
"""

from __future__ import annotations

from typing import Any, Final

from dspex_worker.wire import FRAME_LIMIT, Malformed
from dspex_worker.wire.messages import Kind, Message, read, write

__all__ = ["CREDIT", "HELLO_LIMIT", "LIMIT", "MAGIC", "VERSION", "Kind", "Message", "Verb", "hello", "read", "send"]

MAGIC: Final = "dspex-control"
VERSION: Final = (1, 0)  # a different major cannot talk; a different minor knows more verbs or facts
LIMIT: Final = FRAME_LIMIT + 64 * 1024  # bytes: whatever fits a worker's frame fits here with its envelope
HELLO_LIMIT: Final = 64 * 1024  # bytes that a stranger may announce
CREDIT: Final = 16  # chunks that a stream may be ahead of its consumer


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
    FORGIVE: Final = "forgive"
    STOP: Final = "stop"
    EVENTS: Final = "events"


def send(kind: Kind, *fields: object) -> bytes:
    """Give a message's frame.

    Raises:
        Unencodable, OverLimit: a field cannot be sent.
    """
    return write(kind, *fields, limit=LIMIT)


def hello(message: Message) -> dict[str, Any]:
    """Give the facts of the other side's hello.

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
