"""Split and make frames: a 4-byte big-endian length, then that many bytes (one MessagePack value). Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import cast

from .codec import Malformed, OverLimit

FRAME_LIMIT = 16 * 1024 * 1024  # bytes, unless a pool's `frame_limit` says otherwise
FRAME_LEAST = 1024 * 1024
FRAME_MOST = 1024 * 1024 * 1024
HANDED_OVER = 1024 * 1024  # bytes; a body beyond that is not copied
_LENGTH = struct.Struct(">I")
HEADER = _LENGTH.size


def frame(body: bytes, limit: int = FRAME_LIMIT) -> bytes:
    """Return `body` with its length in front.

    Raises:
        OverLimit: it is longer than `limit` bytes; the sender must not write it.
    """
    return framed((body,), limit)


def framed(parts: Sequence[bytes | memoryview], limit: int = FRAME_LIMIT) -> bytes:
    """Return a body that is given in parts, with its length in front: copied once, for it may be large.

    Raises:
        OverLimit: it is longer than `limit` bytes; the sender must not write it.
    """
    length = sum(map(len, parts))
    if length > limit:
        raise OverLimit("bytes", limit, length)
    return b"".join((_LENGTH.pack(length), *parts))


class FrameBuffer:
    """Collects bytes of a stream, and yields whole frames.

    It never holds more than one frame's `limit` beyond what one `feed` brought: a length over the limit is refused as
    soon as its four bytes are there.
    """

    __slots__ = ("_data", "limit")

    def __init__(self, limit: int = FRAME_LIMIT) -> None:
        self._data = bytearray()
        self.limit = limit

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Add `data` and yield the body of each frame that is now whole.

        Raises:
            Malformed: a length over the limit, or of zero; nothing after it can be trusted.
        """
        is_direct = not self._data  # whole frames are most often what was read
        if not is_direct:
            self._data += data
        buffer = data if is_direct else self._data
        start = 0
        try:
            while len(buffer) - start >= HEADER:
                (length,) = _LENGTH.unpack_from(buffer, start)
                if not 0 < length <= self.limit:
                    raise Malformed(f"a frame of {length:,} bytes was announced; the limit is {self.limit:,}")
                end = start + HEADER + length
                if len(buffer) < end:
                    break
                if not is_direct and not start and length > HANDED_OVER and len(buffer) == end:
                    yield self._hand_over()
                    return
                body = data[start + HEADER : end] if is_direct else bytes(memoryview(buffer)[start + HEADER : end])
                start = end
                yield body
        finally:
            if not is_direct:
                del self._data[:start]
            elif start < len(data):
                self._data += memoryview(data)[start:]

    def _hand_over(self) -> bytes:
        """Return the body of the one frame that is there, without copying it: that costs 30 ms for 64 MB."""
        body, self._data = self._data, bytearray()
        del body[:HEADER]  # moves nothing
        return cast("bytes", body)  # nobody changes it, nor asks for more than bytes can do in common with it

    def clear(self) -> None:
        """Drop what is there: nothing that follows will be read."""
        self._data = bytearray()

    @property
    def pending(self) -> int:
        """How many bytes wait for the rest of their frame; not 0 at the stream's end means that it was cut off."""
        return len(self._data)
