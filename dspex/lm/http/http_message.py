"""Write and parse HTTP/1.1 messages: a request's head, and an incremental response parser. No I/O.

Source: RFC 9112. Obsolete line folding is refused; trailers are read and dropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ...errors import LMTransportError, LMUnexpectedError
from .body_limit import add_part, body_limit, too_long
from .content_decoder import ContentDecoder, decoder_for
from .head_rules import body_length, chunk_size, require_chunked, require_head, require_trailers
from .response_head import Head as Head
from .response_head import is_kept
from .response_head import kept_for as kept_for

LENGTH = b"\r\ncontent-length: "  # how the head of a request ends
HEAD_LIMIT = 64 * 1024
_CRLF = b"\r\n"
_BODYLESS = frozenset({204, 304})


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
    return SecretBytes(text.encode("latin-1") + LENGTH)


class ResponseParser:
    """Parses bytes as they arrive into `head`, `chunks` (body parts not taken yet) and `complete`.

    `reusable` says after completion whether the connection may carry another request.
    """

    __slots__ = ("_buffer", "_chunked", "_decoder", "_left", "_most", "_seen", "chunks", "complete", "head", "reusable")

    def __init__(self) -> None:
        self.head: Head | None = None
        self.chunks: list[bytes | bytearray] = []
        self.complete = False
        self.reusable = False
        self._buffer = b""
        self._chunked = False
        self._decoder: ContentDecoder | None = None
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
        if self._decoder is not None and self.complete:
            self._decoder.end()

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
        if self._decoder is not None:
            self._decoder.end()

    def take(self) -> bytes:
        """Return the body bytes that arrived since the last take."""
        if not self.chunks:
            return b""
        data = bytes(self.chunks[0]) if len(self.chunks) == 1 else b"".join(self.chunks)
        self.chunks.clear()
        return data

    def _begin(self, raw: bytes) -> None:
        text = raw.decode("latin-1")
        require_head(text)
        status = int(text[9:12])
        if status < 200:  # an interim response: the real one follows
            if status == 101:
                raise LMUnexpectedError("The endpoint changed to another protocol, which was not asked for.")
            return
        self.head = head = Head(text, status)
        length = head.sole("\r\ncontent-length:")
        is_kept_alive = text[7] == "1"
        if "\r\nconnection:" in head.folded:
            is_kept_alive = is_kept(head.get("connection").lower(), text[7])
        self.reusable = is_kept_alive
        is_encoded = "-encoding:" in head.folded
        coding = head.sole("\r\ntransfer-encoding:") if is_encoded else None
        if coding is not None:
            require_chunked(coding, length, is_http_1_0=text[7] == "0")
        if status in _BODYLESS:
            self.complete = True
        elif coding is not None:
            self._chunked = True
        elif length is not None:
            self._left = body_length(length, self._most)
            self.complete = self._left == 0
        else:
            self._left = -1
            self.reusable = False
        if is_encoded and "\r\ncontent-encoding:" in head.folded:
            self._decode(head)

    def _decode(self, head: Head) -> None:
        """Undo a compression that can be undone here; of another the head goes on to speak."""
        codings = [value.strip().lower() for name, value in head.headers if name == "content-encoding"]
        self._decoder = decoder_for(codings[0]) if len(codings) == 1 else None
        if self._decoder is not None:
            self.head = head.without("content-encoding")

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
            if self._left:  # the CRLF that ends the chunk, or what is left of it
                tail = data[at : at + self._left]
                if not _CRLF[2 - self._left :].startswith(tail):
                    raise LMUnexpectedError("The endpoint sent a malformed chunk.")
                at += len(tail)
                self._left -= len(tail)
                if self._left:
                    return
            end = data.find(b"\r\n", at)
            if end < 0:
                self._buffer = data[at:]
                if len(self._buffer) > HEAD_LIMIT:
                    raise LMUnexpectedError("The endpoint sent a malformed chunk.")
                return
            self._left = chunk_size(data[at:end]) + 2
            if self._left - 2 > self._most:
                raise too_long(self._most)
            if self._left == 2:
                self._left = 0
                self._trailers(data, at, end + 2)
                return
            at = end + 2

    def _trailers(self, data: bytes, start: int, at: int) -> None:
        if data.startswith(b"\r\n", at):
            self.complete = True
            self.reusable = self.reusable and len(data) == at + 2
        elif (end := data.find(b"\r\n\r\n", at)) >= 0:
            require_trailers(data[at - 2 : end])
            self.complete = True
            self.reusable = False
        elif len(data) - at > HEAD_LIMIT:
            raise LMUnexpectedError(f"The response's trailers are over {HEAD_LIMIT:,} bytes.")
        else:
            self._buffer = data[start:]  # read the last chunk's line again when more has come

    def _add(self, data: bytes) -> None:
        if not data:
            return
        if self._decoder is not None:
            for part in self._decoder.feed(data):
                self._keep(part)
        else:
            self._keep(data)

    def _keep(self, part: bytes) -> None:
        self._seen += len(part)
        if self._seen > self._most:
            raise too_long(self._most)
        if self.chunks:
            add_part(self.chunks, part)
        else:
            self.chunks.append(part)
