"""What the frames say. Each message is one array whose first element is its kind; docs/wire-protocol.md has the table.

Request ids are odd when the supervisor asks and even when the worker asks, so neither needs the other's leave.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

from .codec import Malformed, decode, encode
from .framing import FRAME_LIMIT, frame

MAGIC: Final = "dspex"
PROTOCOL: Final = (1, 0)  # a different major cannot talk; a different minor knows more kinds or notes

Message = list[Any]
Json = dict[str, Any]


class Kind(IntEnum):
    """The first element of every message."""

    HELLO = 1  # [magic, major, minor, facts]: the first frame, both ways
    READY = 2  # [commands]: the worker has set itself up
    CALL = 3  # [id, name, arguments, meta]: a command; from the worker, a reverse call
    RESULT = 4  # [id, value, notes]
    ERROR = 5  # [id, failure, notes]
    CHUNK = 6  # [id, value]: one piece of a stream
    END = 7  # [id, value, notes]: the stream's end, with its value
    CANCEL = 8  # [id]
    CREDIT = 9  # [id, n]: the consumer can take n more chunks
    PING = 10  # [n]
    PONG = 11  # [n]
    LOG = 12  # [call id or 0, level, logger, text]
    EVENT = 13  # [call id or 0, name, facts]
    FORGET = 14  # [session]: drop its state
    RESTORE = 15  # [id, session, mapping]: take this state, answered by a RESULT
    STOP = 16  # []: finish what runs, then exit


_SHAPES: dict[int, tuple[type | None, ...]] = {
    Kind.HELLO: (str, int, int, dict),
    Kind.READY: (dict,),
    Kind.CALL: (int, str, dict, dict),
    Kind.RESULT: (int, None, None),
    Kind.ERROR: (int, dict, None),
    Kind.CHUNK: (int, None),
    Kind.END: (int, None, None),
    Kind.CANCEL: (int,),
    Kind.CREDIT: (int, int),
    Kind.PING: (int,),
    Kind.PONG: (int,),
    Kind.LOG: (int, int, str, str),
    Kind.EVENT: (int, str, dict),
    Kind.FORGET: (str,),
    Kind.RESTORE: (int, str, dict),
    Kind.STOP: (),
}


def read(body: bytes) -> Message:
    """Decode one frame's body into a message whose kind and shape are checked.

    Raises:
        Malformed: it is not a message of this protocol.
    """
    message = decode(body)
    shape = _SHAPES.get(message[0]) if type(message) is list and message and type(message[0]) is int else None
    if shape is None or len(message) != len(shape) + 1:
        raise Malformed(f"{len(body):,} bytes decode to no known message")
    for expected, field in zip(shape, message[1:], strict=True):
        if expected is not None and type(field) is not expected:
            raise Malformed(
                f"a {Kind(message[0]).name} message holds {type(field).__name__}, not {expected.__name__}"
            )
    return message


def write(kind: Kind, *fields: object, limit: int = FRAME_LIMIT, root: str = "value") -> bytes:
    """Give the frame of a message.

    Raises:
        Unencodable, OverLimit: a field cannot be sent; see `codec.encode`.
    """
    return frame(encode([int(kind), *fields], root=root), limit)


def write_call(id: int, name: str, arguments: Json, meta: Json, *, limit: int = FRAME_LIMIT) -> tuple[bytes, bytes]:
    """Give the frame of a CALL, and its arguments' bytes alone (what a poison digest is made of).

    Raises:
        Unencodable, OverLimit: the arguments or meta cannot be sent.
    """
    packed = encode(arguments, root="arguments")
    body = b"".join((_CALL_PREFIX, encode(id), encode(name), packed, encode(meta, root="meta")))
    return frame(body, limit), packed


_CALL_PREFIX: Final = b"\x95" + encode(int(Kind.CALL))  # an array of five, its first element
