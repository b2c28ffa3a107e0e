"""The supervisor's copy of durable sessions (S9): what each answered call wrote, ready for the next worker.

Guarded by the pool's lock. Values are kept packed, so that restoring them is copying bytes.
"""

from __future__ import annotations

from typing import Any

from dspex_worker.wire import encode, frame
from dspex_worker.wire.messages import Kind


class DurableStore:
    """The packed values of one pool's durable sessions."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, bytes]] = {}

    def drop(self, key: str) -> None:
        self._values.pop(key, None)

    def apply(self, key: str, notes: dict[str, Any]) -> None:
        """Take what a successful call wrote and deleted."""
        values = self._values.setdefault(key, {})
        for name in notes.get("deleted") or ():
            values.pop(name, None)
        for name, value in (notes.get("wrote") or {}).items():
            values[name] = encode(value)

    def restore_frame(self, id: int, key: str) -> bytes:
        """Give the RESTORE frame with the session's whole state."""
        values = self._values.get(key, {})
        pairs = b"".join(encode(name) + packed for name, packed in values.items())
        return frame(b"\x94" + encode(int(Kind.RESTORE)) + encode(id) + encode(key) + _map_header(len(values)) + pairs)

    def size(self) -> int:
        return sum(len(packed) for values in self._values.values() for packed in values.values())


def _map_header(length: int) -> bytes:
    """MessagePack's header of a map with `length` pairs, in its widest form."""
    return b"\xdf" + length.to_bytes(4, "big")
