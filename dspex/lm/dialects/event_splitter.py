"""Split a stream of bytes into server-sent events, however it arrives. Pure.

Source: WHATWG HTML, "Server-sent events": lines end with a line feed, a carriage return or both; a byte order mark may
come first. Nothing is looked at twice, so the work grows with what arrived, also when it comes byte by byte.
"""

from __future__ import annotations

_BOM = b"\xef\xbb\xbf"


class EventSplitter:
    """Splits bytes into whole events, their lines ended by line feeds."""

    __slots__ = ("_ends_with_return", "_is_first", "_line_end", "_pending")

    def __init__(self) -> None:
        self._pending = bytearray()  # the event that is arriving
        self._line_end = b""  # its last byte, if that is a line feed: another one ends the event
        self._ends_with_return = False
        self._is_first = True

    @property
    def pending(self) -> int:
        """How many bytes wait for the rest of their event."""
        return len(self._pending)

    def feed(self, data: bytes) -> list[bytes]:
        """Return the events that `data` completes."""
        data = self._line_end + self._with_line_feeds(data)
        *ended, rest = data.split(b"\n\n")
        events: list[bytes] = []
        for event in ended:
            if not event and not self._pending:  # blank lines in a row end nothing
                continue
            self._pending += event
            events.append(self._taken())
        self._line_end = b"\n" if rest.endswith(b"\n") else b""
        self._pending += rest.removesuffix(b"\n")
        return events

    def rest(self) -> bytes:
        """Return and drop what follows the last whole event."""
        self._line_end = b""
        return self._taken()

    def _with_line_feeds(self, data: bytes) -> bytes:
        if self._ends_with_return and data:  # which was taken for a line end; a line feed belongs to it
            data = data.removeprefix(b"\n")
            self._ends_with_return = False
        if b"\r" not in data:
            return data
        self._ends_with_return = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _taken(self) -> bytes:
        event = bytes(self._pending)
        self._pending.clear()
        if self._is_first:
            self._is_first = False
            event = event.removeprefix(_BOM)
        return event
