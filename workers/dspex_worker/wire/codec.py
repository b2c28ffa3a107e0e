"""Encode exact values as MessagePack, and decode them.

`decode(encode(x)) == x`, with the same types, for every x that is accepted: None, bool, int (-2**63 .. 2**64 - 1),
float, str (valid Unicode), bytes, list, and dict with str keys; no subclasses, because they would come back as
something else. The sender checks everything, so that what it accepts always decodes at the other end.

Byte limits do not bound memory: ten million empty maps are 10 MB on the wire and 741 MB as objects. Containers and
elements are therefore limited too, by the sender for all values, by the receiver for frames over `PLAIN_DECODE` bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import msgpack

MAX_DEPTH = 200
MAX_CONTAINERS = 200_000
MAX_ELEMENTS = 2_000_000
PLAIN_DECODE = 64 * 1024
PLAIN_SIZES = 4 * 1024  # a frame up to here may lie about the sizes of its lists: 32 KiB each is what it can win
ENVELOPE = 64  # containers and elements that a message adds around the value that its sender checked


class Unencodable(TypeError):
    """A value that cannot be sent exactly; `path` leads to it, `type_name` is its type, `reason` the cause."""

    def __init__(self, path: str, type_name: str, reason: str = "") -> None:
        super().__init__(f"{path} is {type_name}" + (f": {reason}" if reason else ""))
        self.path = path
        self.type_name = type_name
        self.reason = reason


class OverLimit(ValueError):
    """A value or frame larger than the protocol allows; `what` is bytes, containers, elements or levels."""

    def __init__(self, what: str, limit: int, actual: int) -> None:
        super().__init__(f"{actual:,} {what}, the limit is {limit:,}")
        self.what = what
        self.limit = limit
        self.actual = actual


class Malformed(ValueError):
    """Bytes that are not a message of this protocol."""


class Packed:
    """The bytes of a value that only travels through: checked by `messages.read`, and sent on as they came."""

    __slots__ = ("data",)

    def __init__(self, data: memoryview) -> None:
        self.data = data


def encode(value: object, *, root: str = "value") -> bytes:
    """Return the bytes of `value`; `root` is what error paths begin with.

    Raises:
        Unencodable: something in it has no exact form.
        OverLimit: more levels, containers or elements than the receiver would take.
    """
    try:
        survey(value)
        packed: bytes = packer().pack(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise refusal_of(error, (value,), root) from None
    return packed


def survey(*fields: object) -> None:
    """Check types, keys, depth and counts of the fields together, breadth first.

    The packer refuses subclasses, but takes bytearrays, memoryviews and timestamps: they would come back as others.

    Raises:
        TypeError: a type, or a key's, is not one of the accepted.
        OverLimit: more levels (a cycle runs into that), containers or elements than the receiver would take.
    """
    level: list[Any] = []
    for field in fields:
        if type(field) not in _SCALARS:
            level.append(_container(field))  # noqa: PERF401 - a comprehension is a call, here and below
    depth = containers = elements = 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise OverLimit("levels", MAX_DEPTH, depth)
        containers += len(level)
        if containers > MAX_CONTAINERS:
            raise OverLimit("containers", MAX_CONTAINERS, containers)
        below: list[Any] = []
        for container in level:
            elements += len(container)
            if type(container) is dict:
                for key in container:
                    if type(key) is not str:
                        raise TypeError("key")
                container = container.values()
            for item in container:
                if type(item) not in _SCALARS:
                    below.append(_container(item))  # noqa: PERF401
            if elements > MAX_ELEMENTS:
                raise OverLimit("elements", MAX_ELEMENTS, elements)
        level = below


def _container(value: object) -> object:
    kind = type(value)
    if kind is dict or kind is list:
        return value
    raise TypeError(kind.__name__)


def refusal_of(error: Exception, fields: Sequence[object], root: str) -> Exception:
    """Return the exception that names the part of the fields that could not be packed."""
    if isinstance(error, OverLimit):
        return error
    for field in fields:
        blamed = _blame(field, root)
        if blamed is not None:
            return blamed
    return Unencodable(root, type(fields[-1]).__name__, str(error))


def decode(data: bytes, *, envelope: int = ENVELOPE) -> Any:
    """Return the value that `data` encodes; `envelope` is how many containers and elements are not the sender's value.

    Raises:
        Malformed: the bytes are no value, or hold one over the limits.
    """
    try:
        if len(data) > PLAIN_SIZES:
            _require_true_sizes(data)
        if len(data) > PLAIN_DECODE:
            return _decode_counting(data, envelope)
        if not _is_suspicious(data):
            return msgpack.unpackb(data, ext_hook=_refuse_extension)
        return _exact(msgpack.unpackb(data, object_hook=_exact, list_hook=_exact, ext_hook=_refuse_extension))
    except Malformed:
        raise
    except Exception as error:  # msgpack raises ValueError, StackError, UnicodeDecodeError, and others by version
        raise Malformed(f"{len(data):,} bytes are not a value: {type(error).__name__}") from None


def _decode_counting(data: bytes, envelope: int) -> Any:
    containers = elements = 0
    is_suspicious = _is_suspicious(data)

    def count(container: Any) -> Any:
        nonlocal containers, elements
        containers += 1
        elements += len(container)
        if containers > MAX_CONTAINERS + envelope or elements > MAX_ELEMENTS + envelope:
            raise Malformed(f"over {MAX_CONTAINERS:,} containers or {MAX_ELEMENTS:,} elements in one frame")
        return _exact(container) if is_suspicious else container

    return msgpack.unpackb(
        data,
        list_hook=count,
        object_hook=count,
        ext_hook=_refuse_extension,
        max_array_len=MAX_ELEMENTS,
        max_map_len=MAX_ELEMENTS,
    )


def _require_true_sizes(data: bytes) -> None:
    """Walk through `data` without building anything.

    The decoder makes room for as many elements as a list announces: a thousand nested lists that each announce what
    the whole frame could hold took 64 MB.
    """
    walker = msgpack.Unpacker(max_buffer_size=len(data))
    walker.feed(data)
    walker.skip()


def _is_suspicious(data: bytes) -> bool:
    """Whether `data` may hold what msgpack lets through and this protocol does not: scans by memchr, 0.1 us.

    A bytes key begins with the first byte of a bin (0xc4 - 0xc6); a timestamp is an extension of type 0xff.
    """
    return b"\xff" in data or b"\xc4" in data or b"\xc5" in data or b"\xc6" in data


def _exact(value: Any) -> Any:
    """Refuse what msgpack lets through and this protocol does not know: bytes as keys, and timestamps."""
    kind = type(value)
    if kind is dict:
        if not _STR_ONLY.issuperset(map(type, value)):
            raise Malformed("a map has a key that is no string")
        if msgpack.Timestamp in map(type, value.values()):
            raise Malformed("timestamps are not part of this protocol")
    elif kind is msgpack.Timestamp or (kind is list and msgpack.Timestamp in map(type, value)):
        raise Malformed("timestamps are not part of this protocol")
    return value


def _refuse_extension(code: int, data: bytes) -> object:
    raise Malformed(f"extension type {code} is not part of this protocol")


_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_STR_ONLY = frozenset({str})


def _blame(value: object, path: str) -> Unencodable | None:
    """Find the first part of `value` that cannot be sent: slow, and only for the message."""
    stack: list[tuple[str, Any]] = [(path, value)]
    while stack:
        path, item = stack.pop()
        if type(item) is dict:
            for key in item:
                if type(key) is not str:
                    return Unencodable(f"{path} key {key!r:.60}", type(key).__name__, "keys must be str")
                if not is_unicode(key):
                    return Unencodable(f"{path} key {key!r:.60}", "str", "it holds lone surrogates")
            stack.extend((f"{path}[{key!r:.60}]", item[key]) for key in reversed(item))
        elif type(item) is list:
            stack.extend((f"{path}[{i}]", item[i]) for i in reversed(range(len(item))))
        elif (reason := _refusal(item)) is not None:
            return Unencodable(path, type(item).__name__, reason)
    return None


def _refusal(item: object) -> str | None:
    kind = type(item)
    if item is None or kind is bool or kind is float or kind is bytes:
        return None
    if kind is str:
        return None if is_unicode(item) else "it holds lone surrogates"  # type: ignore[arg-type]
    if kind is int:
        return None if -(2**63) <= item < 2**64 else "it needs more than 64 bits"  # type: ignore[operator]
    return "tuples come back as lists" if kind is tuple else ""


def is_unicode(text: str) -> bool:
    """Whether a text can be encoded: it holds no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_local = threading.local()  # a Packer keeps its buffer between calls, and is not thread-safe


def packer() -> Any:
    """Return this thread's packer: it refuses every type that would come back as another."""
    try:
        return _local.packer
    except AttributeError:
        _local.packer = msgpack.Packer(strict_types=True, use_bin_type=True, default=_refuse)
        return _local.packer


def _refuse(value: object) -> object:
    raise TypeError(type(value).__name__)
