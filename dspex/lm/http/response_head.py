"""`Head`: a response's status line and headers, and what they say of the connection. Pure."""

from __future__ import annotations

import re

from ...errors import LMUnexpectedError

KEEP_ALIVE_MARGIN_S = 1.0  # a request on the way when the peer closes is lost
_KEEP_ALIVE = re.compile(r"\btimeout\s*=\s*\"?(\d{1,9})")
_KEEP_ALIVE_OVER = re.compile(r"\bmax\s*=\s*\"?0*\b(?!\d)")


class Head:
    """A response's status line and headers. `headers` is parsed when first asked for: most callers never do."""

    __slots__ = ("folded", "raw", "status")

    def __init__(self, raw: str, status: int) -> None:
        self.raw = raw
        self.status = status
        self.folded = raw.lower()

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The headers in order; names in lower case, repeated names repeated."""
        pairs = (line.partition(":") for line in self.raw.split("\r\n")[1:])
        return tuple((name.lower(), value.strip()) for name, colon, value in pairs if colon and name.strip() == name)

    def get(self, name: str, default: str = "") -> str:
        """Return the first value of a header, by its lower-case name."""
        at = self.folded.find(f"\r\n{name}:")
        if at < 0:
            return default
        start = at + len(name) + 3
        end = self.raw.find("\r\n", start)
        return self.raw[start : end if end >= 0 else None].strip()

    def sole(self, mark: str) -> str | None:
        """Return the value of a header that may be there once, by its name in `mark`; None if it is not there.

        Raises:
            LMUnexpectedError: it is there twice.
        """
        at = self.folded.find(mark)
        if at < 0:
            return None
        end = self.raw.find("\r\n", at + 2)
        if end < 0:
            return self.raw[at + len(mark) :].strip()
        if self.folded.find(mark, end) >= 0:
            raise LMUnexpectedError(f"The response has two headers {mark.strip()[:-1]}.")
        return self.raw[at + len(mark) : end].strip()

    def without(self, name: str) -> Head:
        """Return the head without its headers of a name in lower case."""
        first, *lines = self.raw.split("\r\n")
        kept = [line for line in lines if line.partition(":")[0].lower() != name]
        return Head("\r\n".join((first, *kept)), self.status)


def kept_for(head: Head, most: float) -> float:
    """Return the seconds that the peer keeps the connection, by its Keep-Alive header; `most` where it has none."""
    if "\r\nkeep-alive:" not in head.folded:
        return most
    value = head.get("keep-alive").lower()
    if not value:
        return most
    if _KEEP_ALIVE_OVER.search(value):
        return 0.0
    found = _KEEP_ALIVE.search(value)
    if found is None:
        return most
    seconds = float(found[1])
    return min(most, max(seconds - KEEP_ALIVE_MARGIN_S, seconds / 2))


def is_kept(connection: str, minor: str) -> bool:
    """Return whether the connection may be used again, by its Connection header and HTTP/1's minor version."""
    return "close" not in connection and (minor == "1" or "keep-alive" in connection)
