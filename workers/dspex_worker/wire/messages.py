"""Write and read messages, the content of frames: arrays whose first element is the kind.

docs/internals/wire-protocol.md has the table.

Request ids are odd when the supervisor asks and even when the worker asks, so neither needs the other's leave.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

import msgpack

from .codec import ENVELOPE, Malformed, OverLimit, Packed, Unencodable, decode, encode, packer, refusal_of, survey
from .framing import FRAME_LIMIT, HEADER, framed

MAGIC: Final = "dspex"
PACKED_FROM: Final = 4 * 1024  # bytes of a message whose value is cheaper to find in it (3 us) than to encode anew
PROTOCOL: Final = (1, 1)  # a different major cannot talk; a different minor knows more kinds or notes

Message = list[Any]
Json = dict[str, Any]


class Kind(IntEnum):
    """The first element of every message."""

    HELLO = 1  # [magic, major, minor, facts]: the first frame, both ways
    READY = 2  # [commands]: the worker has set itself up
    CALL = 3  # [id, name, arguments, meta]: a command; from the worker, a callback
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
    DROP = 14  # [session]: drop its state
    RESTORE = 15  # [id, session, mapping]: take this state, answered by a RESULT
    STOP = 16  # []: finish what runs, then exit
    STACKS = 17  # [n]: write the stacks of all threads into the file that HELLO named


_ANY: Final = None
_NOTES: Final = object()  # a map, or nothing
_SHAPES: Final[dict[Kind, tuple[object, ...]]] = {
    Kind.HELLO: (str, int, int, dict),
    Kind.READY: (dict,),
    Kind.CALL: (int, str, dict, dict),
    Kind.RESULT: (int, _ANY, _NOTES),
    Kind.ERROR: (int, dict, _NOTES),
    Kind.CHUNK: (int, _ANY),
    Kind.END: (int, _ANY, _NOTES),
    Kind.CANCEL: (int,),
    Kind.CREDIT: (int, int),
    Kind.PING: (int,),
    Kind.PONG: (int,),
    Kind.LOG: (int, int, str, str),
    Kind.EVENT: (int, str, dict),
    Kind.DROP: (str,),
    Kind.RESTORE: (int, str, dict),
    Kind.STOP: (),
    Kind.STACKS: (int,),
}
_CHECKS: Final = {  # kind: (how many elements, which of them must have which type, has notes)
    int(kind): (
        len(shape) + 1,
        tuple((i, expected) for i, expected in enumerate(shape, 1) if isinstance(expected, type)),
        shape[-1:] == (_NOTES,),
    )
    for kind, shape in _SHAPES.items()
}


def read(body: bytes, *, envelope: int = ENVELOPE) -> Message:
    """Decode one frame's body into a message whose kind and shape are checked; `envelope` as for `decode`.

    Raises:
        Malformed: it is not a message of this protocol.
    """
    message = decode(body, envelope=envelope)
    check = _CHECKS.get(message[0]) if type(message) is list and message and type(message[0]) is int else None
    if check is None or len(message) != check[0]:
        raise Malformed(f"{len(body):,} bytes decode to no known message")
    for index, expected in check[1]:
        if type(message[index]) is not expected:
            raise _misshapen(message)
    if check[2] and message[3] is not None and type(message[3]) is not dict:
        raise _misshapen(message)
    return message  # type: ignore[no-any-return]


def _misshapen(message: Message) -> Malformed:
    found = ", ".join(type(field).__name__ for field in message[1:])
    return Malformed(f"a {Kind(message[0]).name} message holds ({found})")


def write(kind: Kind, *fields: object, limit: int = FRAME_LIMIT, root: str = "value") -> bytes:
    """Return the frame of a message; `root` is what error paths begin with.

    Raises:
        Unencodable, OverLimit: a field cannot be sent; see `codec.encode`.
    """
    try:
        survey(*fields)
        body = packer().pack([+kind, *fields])  # + makes it a plain int, in 30 ns
    except (TypeError, ValueError, OverflowError) as error:
        raise refusal_of(error, fields, root) from None
    return framed((body,), limit)


def write_answer(kind: Kind, id: int, value: Packed, notes: Json | None = None, *, limit: int = FRAME_LIMIT) -> bytes:
    """Return the frame of a RESULT, CHUNK or END whose value is passed on as it came; a CHUNK has no notes.

    Raises:
        OverLimit: the frame would be too long.
    """
    head = packer().pack([+kind, id])[1:]
    is_chunk = kind == Kind.CHUNK
    before, after = (
        (_ARRAY_OF_THREE, b"") if is_chunk else (_ARRAY_OF_FOUR, _NOTHING if notes is None else packer().pack(notes))
    )
    return framed((before, head, value.data, after), limit)


def value_in(body: bytes) -> Packed:
    """Return the bytes of the value in a RESULT, CHUNK or END that `read` has taken."""
    walker = _walker(body, 2)
    start = walker.tell()
    walker.skip()
    return Packed(memoryview(body)[start : walker.tell()])


def argument_in(body: bytes, name: str) -> Packed:
    """Return the bytes of one of the arguments of a CALL that `read` has taken; it must be there."""
    walker = _walker(body, 3)
    start = end = 0
    for _ in range(walker.read_map_header()):
        is_found = walker.unpack() == name
        before = walker.tell()
        walker.skip()
        if is_found:  # the last one of that name, as for who decodes them
            start, end = before, walker.tell()
    return Packed(memoryview(body)[start:end])


def _walker(body: bytes, fields: int) -> Any:
    """Return an unpacker that stands behind the first `fields` fields of a message."""
    walker = msgpack.Unpacker(max_buffer_size=len(body))
    walker.feed(body)
    walker.read_array_header()
    for _ in range(fields):
        walker.skip()
    return walker


def write_call(
    id: int, name: str, arguments: Json | Packed, meta: Json, *, limit: int = FRAME_LIMIT
) -> tuple[bytes, int, int]:
    """Return the frame of a CALL, and from where to where its arguments stand in it (a poison digest is made of them).

    Raises:
        Unencodable, OverLimit: the arguments or meta cannot be sent.
    """
    try:
        pack = packer().pack
        if type(arguments) is Packed:
            packed = arguments.data
        else:
            survey(arguments)  # the name is text, and meta is made of what both sides know
            packed = pack(arguments)
        head, tail = pack([_CALL, id, name]), pack(meta)
    except (TypeError, ValueError, OverflowError) as error:
        raise _refusal_of_call(error, id, name, arguments, meta) from None
    start = HEADER + len(head)  # the array of three became one of five: as long
    return framed((_ARRAY_OF_FIVE, head[1:], packed, tail), limit), start, start + len(packed)


def _refusal_of_call(error: Exception, id: int, name: str, arguments: Json | Packed, meta: Json) -> Exception:
    fields: tuple[tuple[str, object], ...] = (("id", id), ("name", name), ("arguments", arguments))
    for root, field in fields[: 2 if type(arguments) is Packed else 3]:
        try:
            encode(field, root=root)
        except (Unencodable, OverLimit) as refusal:
            return refusal
    return refusal_of(error, (meta,), "meta")


_CALL: Final = Kind.CALL.value
_ARRAY_OF_THREE: Final = b"\x93"
_ARRAY_OF_FOUR: Final = b"\x94"
_ARRAY_OF_FIVE: Final = b"\x95"
_NOTHING: Final = b"\xc0"
