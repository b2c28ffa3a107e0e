"""Keep the supervisor's copy of durable sessions (S9), ready for the next worker.

Guarded by the pool's lock. Values are kept packed, so that restoring them is copying bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dspex_worker.wire import Malformed, OverLimit, decode, encode, frame
from dspex_worker.wire.messages import Kind

STATE_LIMIT = 1024 * 1024  # bytes of one session's names and packed values; its worker keeps the same


def pack(wrote: Mapping[str, Any]) -> dict[str, bytes]:
    """Pack the values that a reply reports as written.

    Raises:
        Malformed: what arrived cannot be sent again: it is nested too deeply.
    """
    try:
        return {name: encode(value) for name, value in wrote.items()}
    except OverLimit as limit:
        raise Malformed(f"its session notes hold a value of {limit}") from None


def require_state(state: Mapping[str, Any]) -> None:
    """Check packed values that another process kept, before a worker unpacks them.

    Raises:
        Malformed: they are none, or more than a session may hold.
    """
    if not all(isinstance(name, str) and isinstance(packed, bytes) for name, packed in state.items()):
        raise Malformed("a session's state is names and packed values")
    size = sum(len(name) + len(packed) for name, packed in state.items())
    if size > STATE_LIMIT:
        raise Malformed(f"the session's state has {size:,} bytes; the limit is {STATE_LIMIT:,}")
    for packed in state.values():
        decode(packed)


@dataclass(frozen=True, slots=True)
class SessionCopy:
    """What the supervisor knows of a session: whether its worker, or this process, holds state; and that state."""

    is_stateful: bool = False
    generation: int = 0
    values: Mapping[str, bytes] | None = None  # of a durable one


class DurableSessions:
    """The packed values of one pool's durable sessions."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, bytes]] = {}

    def drop(self, key: str) -> None:
        self._values.pop(key, None)

    def require_room(self, key: str, notes: Mapping[str, Any]) -> None:
        """Check that what a call wrote fits.

        Raises:
            Malformed: the session would be larger than its worker may let it be.
        """
        after = self._after(key, notes)
        size = sum(len(name) + len(packed) for name, packed in after.items())
        if size > STATE_LIMIT:
            raise Malformed(f"its session notes make {size:,} bytes of state; the limit is {STATE_LIMIT:,}")

    def values(self, key: str) -> dict[str, bytes]:
        """Return the packed values of a session."""
        return dict(self._values.get(key, ()))

    def put(self, key: str, values: Mapping[str, bytes]) -> None:
        """Take a session's whole state, from who kept a copy of it."""
        self._values[key] = dict(values)

    def apply(self, key: str, notes: Mapping[str, Any]) -> None:
        """Apply what a call wrote, packed, and deleted."""
        self._values[key] = self._after(key, notes)

    def _after(self, key: str, notes: Mapping[str, Any]) -> dict[str, bytes]:
        values = dict(self._values.get(key, ()))
        for name in notes.get("deleted") or ():
            values.pop(name, None)
        values.update(notes.get("wrote") or {})
        return values

    def restore_frame(self, id: int, key: str) -> bytes:
        """Return the RESTORE frame with the session's whole state."""
        values = self._values.get(key, {})
        pairs = b"".join(encode(name) + packed for name, packed in values.items())
        return frame(b"\x94" + encode(int(Kind.RESTORE)) + encode(id) + encode(key) + _map_header(len(values)) + pairs)

    def size(self) -> int:
        return sum(len(packed) for values in self._values.values() for packed in values.values())


def _map_header(length: int) -> bytes:
    """Return MessagePack's header of a map with `length` pairs, in its widest form."""
    return b"\xdf" + length.to_bytes(4, "big")
