"""Write and parse HTTP/1.1 messages: a request's head, and an incremental response parser. No I/O.

Source: RFC 9112. Obsolete line folding is refused; trailers are read and dropped.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from ...errors import LMConfigurationError, LMTransportError, LMUnexpectedError

HEAD_LIMIT = 64 * 1024
BODY_LIMIT = 16 * 1024 * 1024  # reading one is some 50 ms in which no other thread runs
BODY_LIMIT_SETTING = "DSPEX_REPLY_LIMIT_MIB"  # of the environment: another limit, in MiB
KEEP_ALIVE_MARGIN_S = 1.0  # a request on the way when the peer closes is lost
_KEEP_ALIVE = re.compile(r"\btimeout\s*=\s*\"?(\d{1,9})")
_KEEP_ALIVE_OVER = re.compile(r"\bmax\s*=\s*\"?0*\b(?!\d)")
_HEX = re.compile(rb"[0-9a-fA-F]{1,16}")
_BODYLESS = frozenset({204, 304})
_MIB_MOST = 4096
_DIGITS_MOST = 18
_SMALL = 4096  # bytes; parts below it are joined as they arrive: a list of a million takes many times their bytes
_VERSIONS = ("HTTP/1.1 ", "HTTP/1.0 ")


@functools.cache  # it is asked for with each response
def body_limit() -> int:
    """Return how many bytes a response's body may have.

    Raises:
        LMConfigurationError: the environment's limit is no whole number of MiB, 1 or more.
    """
    given = os.environ.get(BODY_LIMIT_SETTING)
    if not given:
        return BODY_LIMIT
    if not (given.isascii() and given.isdecimal()) or not 1 <= int(given[:9]) <= _MIB_MOST:
        raise LMConfigurationError(
            f"{BODY_LIMIT_SETTING} is {given[:50]!r}; it is a whole number of MiB from 1 to {_MIB_MOST:,}."
        )
    return int(given) * 1024 * 1024


class Head:
    """A response's status line and headers. `headers` is parsed when first asked for: most callers never do."""

    __slots__ = ("_folded", "raw", "status")

    def __init__(self, raw: str, status: int) -> None:
        self.raw = raw
        self.status = status
        self._folded = raw.lower()

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The headers in order; names in lower case, repeated names repeated."""
        pairs = (line.partition(":") for line in self.raw.split("\r\n")[1:])
        return tuple((name.lower(), value.strip()) for name, colon, value in pairs if colon and name.strip() == name)

    def get(self, name: str, default: str = "") -> str:
        """Return the first value of a header, by its lower-case name."""
        at = self._folded.find(f"\r\n{name}:")
        if at < 0:
            return default
        start = at + len(name) + 3
        end = self.raw.find("\r\n", start)
        return self.raw[start : end if end >= 0 else None].strip()


@dataclass(slots=True)
class Reply:
    """A whole response."""

    head: Head
    body: bytes

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.head.status


class SecretBytes(bytes):
    """Bytes that hold a key. Their repr does not: reporters of errors show the variables of each frame."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} bytes of a request>"


def whole_request(head: bytes, body: bytes) -> bytes:
    """Return what is sent."""
    return SecretBytes(b"".join((head, b"%d\r\n\r\n" % len(body), body)))


def request_head(method: str, path: str, host: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return the head of a request up to, and without, the value of Content-Length, which is always its last header.

    Raises:
        ValueError: a header that would end its line (header injection).
    """
    lines = [f"{method} {path} HTTP/1.1", f"host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers]
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1 or "\0" in text:
        raise ValueError("an HTTP header or path holds a line break")
    return SecretBytes(text.encode("latin-1") + b"\r\ncontent-length: ")


class ResponseParser:
    """Parses bytes as they arrive into `head`, `chunks` (body parts not taken yet) and `complete`.

    `reusable` says after completion whether the connection may carry another request.
    """

    __slots__ = ("_buffer", "_chunked", "_left", "_most", "_seen", "chunks", "complete", "head", "reusable")

    def __init__(self) -> None:
        self.head: Head | None = None
        self.chunks: list[bytes | bytearray] = []
        self.complete = False
        self.reusable = False
        self._buffer = b""
        self._chunked = False
        self._left = 0  # bytes left of the body or of the chunk; -1: until the connection closes
        self._seen = 0
        self._most = body_limit()

    def feed(self, data: bytes) -> None:
        """Parse bytes that arrived.

        Raises:
            LMUnexpectedError: the peer does not speak HTTP/1.1, or went over a limit.
        """
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        while self.head is None:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > HEAD_LIMIT:
                    raise LMUnexpectedError(f"The response's headers are over {HEAD_LIMIT:,} bytes.")
                self._buffer = data
                return
            self._begin(data[:end])
            data = data[end + 4 :]
        if data or not self.complete:
            self._body(data)

    def closed(self) -> None:
        """Note that the peer closed the connection.

        Raises:
            LMTransportError: the response was not whole yet.
        """
        if self.complete:
            return
        if self.head is None or self._left != -1:
            raise LMTransportError("The connection was closed before the response was whole.")
        self.complete = True

    def take(self) -> bytes:
        """Return the body bytes that arrived since the last take."""
        if not self.chunks:
            return b""
        data = bytes(self.chunks[0]) if len(self.chunks) == 1 else b"".join(self.chunks)
        self.chunks.clear()
        return data

    def _begin(self, raw: bytes) -> None:
        text = raw.decode("latin-1")
        if not text.startswith(_VERSIONS) or not text[9:12].isdecimal():
            raise LMUnexpectedError("The endpoint answered something that is not HTTP/1.1.")
        status = int(text[9:12])
        if 100 <= status < 200:  # an interim response: the real one follows
            return
        self.head = head = Head(text, status)
        connection, coding = head.get("connection"), head.get("transfer-encoding")
        self.reusable = _is_kept(connection.lower(), text[7]) if connection else text[7] == "1"
        if status in _BODYLESS:
            self.complete = True
        elif coding and "chunked" in coding.lower():
            self._chunked = True
        elif length := head.get("content-length"):
            if not length.isdecimal() or len(length) > _DIGITS_MOST or int(length) > self._most:
                raise self._too_long("The response's length is no number of bytes")  # its text may quote the key
            self._left = int(length)
            self.complete = self._left == 0
        else:
            self._left = -1
            self.reusable = False

    def _body(self, data: bytes) -> None:
        if self._chunked:
            self._dechunk(data)
        elif self._left == -1:
            self._add(data)
        else:
            if len(data) > self._left:  # bytes after the response: the stream is out of step
                data = data[: self._left]
                self.reusable = False
            self._add(data)
            self._left -= len(data)
            self.complete = self._left == 0

    def _dechunk(self, data: bytes) -> None:
        at = 0
        while not self.complete:
            if self._left > 2:  # inside a chunk; its CRLF is counted in `_left`
                part = data[at : at + self._left - 2]
                self._add(part)
                at += len(part)
                self._left -= len(part)
                if self._left > 2:
                    return
            if self._left:  # the CRLF that ends the chunk
                skip = min(self._left, len(data) - at)
                at += skip
                self._left -= skip
                if self._left:
                    return
            end = data.find(b"\r\n", at)
            if end < 0:
                self._buffer = data[at:]
                if len(self._buffer) > HEAD_LIMIT:
                    raise LMUnexpectedError("The endpoint sent a malformed chunk.")
                return
            size = data[at:end].split(b";", 1)[0].strip()
            if not _HEX.fullmatch(size):
                raise LMUnexpectedError("The endpoint sent a malformed chunk.")
            self._left = int(size, 16) + 2
            if self._left < 2 or self._left - 2 > self._most:
                raise self._too_long("The endpoint sent a chunk of a size")
            if self._left == 2:
                self._left = 0
                self._trailers(data, at, end + 2)
                return
            at = end + 2

    def _trailers(self, data: bytes, start: int, at: int) -> None:
        if data.startswith(b"\r\n", at):
            self.complete = True
            self.reusable = self.reusable and len(data) == at + 2
        elif data.find(b"\r\n\r\n", at) >= 0:
            self.complete = True
            self.reusable = False
        elif len(data) - at > HEAD_LIMIT:
            raise LMUnexpectedError(f"The response's trailers are over {HEAD_LIMIT:,} bytes.")
        else:
            self._buffer = data[start:]  # read the last chunk's line again when more has come

    def _add(self, data: bytes) -> None:
        if data:
            self._seen += len(data)
            if self._seen > self._most:
                raise self._too_long("The response's body is of a size")
            if len(data) >= _SMALL:
                self.chunks.append(data)
            elif self.chunks and type(self.chunks[-1]) is bytearray:
                self.chunks[-1] += data
            else:
                self.chunks.append(bytearray(data) if self._chunked and self.chunks else data)

    def _too_long(self, what: str) -> LMUnexpectedError:
        limit = self._most
        return LMUnexpectedError(f"{what} within the limit of {limit:,} bytes ({BODY_LIMIT_SETTING} sets another).")


def kept_for(head: Head, most: float) -> float:
    """Return the seconds that the peer keeps the connection, by its Keep-Alive header; `most` where it has none."""
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


def _is_kept(connection: str, minor: str) -> bool:
    """Return whether the connection may be used again, by its Connection header and HTTP/1's minor version."""
    return "close" not in connection and (minor == "1" or "keep-alive" in connection)
