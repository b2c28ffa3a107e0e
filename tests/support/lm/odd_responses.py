"""Responses that readers disagree about, and what the well-kept parsers llhttp (httptools) and h11 make of bytes."""

from __future__ import annotations

from typing import Any

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
REFUSED: dict[str, bytes] = {
    "differing CL": OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    "differing CL list": OK + b"content-length: 5, 6\r\n\r\nhello",
    "same CL twice": OK + b"content-length: 5\r\ncontent-length: 5\r\n\r\nhello",
    "CL + TE": OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "TE + CL": OK + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "TE xchunked": OK + b"transfer-encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "TE chunked, identity": OK + b"transfer-encoding: chunked, identity\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "TE gzip, chunked": OK + b"transfer-encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "TE twice": OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "TE identity": OK + b"transfer-encoding: identity\r\n\r\nhello",
    "TE in HTTP/1.0": b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunk 0x5": CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "chunk +5": CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n",
    "chunk -5": CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
    "chunk 0_5": CHUNKED + b"0_5\r\nhello\r\n0\r\n\r\n",
    "chunk empty": CHUNKED + b"\r\nhello\r\n0\r\n\r\n",
    "chunk ' 5'": CHUNKED + b" 5\r\nhello\r\n0\r\n\r\n",
    "chunk '5 '": CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n",
    "chunk '5 ;x'": CHUNKED + b"5 ;x\r\nhello\r\n0\r\n\r\n",
    "chunk lf": CHUNKED + b"5\nhello\r\n0\r\n\r\n",
    "chunk no crlf": CHUNKED + b"5\r\nhelloXX0\r\n\r\n",
    "chunk lf after": CHUNKED + b"5\r\nhello\n0\r\n\r\n",
    "chunk huge": CHUNKED + b"FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
    "chunk ext nul": CHUNKED + b"5;a=\0\r\nhello\r\n0\r\n\r\n",
    "chunk ext lf": CHUNKED + b"5;a=\nb\r\nhello\r\n0\r\n\r\n",
    "trailer obs-fold": CHUNKED + b"5\r\nhello\r\n0\r\nx: a\r\n b\r\n\r\n",
    "trailer garbage": CHUNKED + b"5\r\nhello\r\n0\r\nnocolon\r\n\r\n",
    "obs-fold": OK + b"x: a\r\n b\r\ncontent-length: 5\r\n\r\nhello",
    "obs-fold first": OK + b" x: a\r\ncontent-length: 5\r\n\r\nhello",
    "NUL in value": OK + b"x: a\0b\r\ncontent-length: 5\r\n\r\nhello",
    "NUL in name": OK + b"x\0: a\r\ncontent-length: 5\r\n\r\nhello",
    "ctl in value": OK + b"x: a\x01b\r\ncontent-length: 5\r\n\r\nhello",
    "DEL in value": OK + b"x: a\x7fb\r\ncontent-length: 5\r\n\r\nhello",
    "bare CR in value": OK + b"x: a\rb\r\ncontent-length: 5\r\n\r\nhello",
    "bare LF in value": OK + b"x: a\ncontent-length: 5\r\n\r\nhello",
    "bare LF lines": b"HTTP/1.1 200 OK\ncontent-length: 5\n\nhello",
    "no colon": OK + b"nocolon\r\ncontent-length: 5\r\n\r\nhello",
    "empty name": OK + b": x\r\ncontent-length: 5\r\n\r\nhello",
    "space before colon": OK + b"content-length : 5\r\n\r\nhello",
    "bad token name": OK + b"x(y): 5\r\ncontent-length: 5\r\n\r\nhello",
    "CL +5": OK + b"content-length: +5\r\n\r\nhello",
    "CL 5_0": OK + b"content-length: 0_5\r\n\r\nhello",
    "CL 0x5": OK + b"content-length: 0x5\r\n\r\nhello",
    "CL empty": OK + b"content-length: \r\n\r\nhello",
    "CL -5": OK + b"content-length: -5\r\n\r\nhello",
    "CL '5 5'": OK + b"content-length: 5 5\r\n\r\nhello",
    "CL unicode": OK + "content-length: \u00b2\r\n\r\nhello".encode("latin-1"),
    "CL huge": OK + b"content-length: 99999999999999999999999\r\n\r\nhello",
    "status 2000": b"HTTP/1.1 2000 OK\r\ncontent-length: 5\r\n\r\nhello",
    "status 20": b"HTTP/1.1 20 OK\r\ncontent-length: 5\r\n\r\nhello",
    "status 000": b"HTTP/1.1 000 OK\r\ncontent-length: 5\r\n\r\nhello",
    "status 099": b"HTTP/1.1 099 OK\r\ncontent-length: 5\r\n\r\nhello",
    "status +20": b"HTTP/1.1 +20 OK\r\ncontent-length: 5\r\n\r\nhello",
    "status 200OK": b"HTTP/1.1 200OK\r\ncontent-length: 5\r\n\r\nhello",
    "status two spaces": b"HTTP/1.1  200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "reason CR": b"HTTP/1.1 200 O\rK\r\ncontent-length: 5\r\n\r\nhello",
    "reason NUL": b"HTTP/1.1 200 O\0K\r\ncontent-length: 5\r\n\r\nhello",
    "version 1.2": b"HTTP/1.2 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "version 2.0": b"HTTP/2.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "version 0.9": b"HTTP/0.9 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "http lower": b"http/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "crlf before": b"\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "garbage before": b"xHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "101": b"HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\nhello",
    "interim with CL": b"HTTP/1.1 100 C\r\ncontent-length: 5\r\n\r\nhello" + OK + b"content-length: 5\r\n\r\nhello",
}

TAKEN: dict[str, tuple[bytes, int, bytes]] = {
    "no reason": (b"HTTP/1.1 200\r\ncontent-length: 5\r\n\r\nhello", 200, b"hello"),
    "empty reason": (b"HTTP/1.1 200 \r\ncontent-length: 5\r\n\r\nhello", 200, b"hello"),
    "Latin reason": (b"HTTP/1.1 200 \xfc\r\ncontent-length: 5\r\n\r\nhello", 200, b"hello"),
    "status 700": (b"HTTP/1.1 700 X\r\ncontent-length: 5\r\n\r\nhello", 700, b"hello"),
    "no space": (OK + b"content-length:5\r\n\r\nhello", 200, b"hello"),
    "tabs": (OK + b"content-length:\t5\t\r\nx:\ta\tb\r\n\r\nhello", 200, b"hello"),
    "empty value": (OK + b"x:\r\ncontent-length: 5\r\n\r\nhello", 200, b"hello"),
    "UTF-8 value": (OK + "x: \u00fc\r\ncontent-length: 5\r\n\r\nhello".encode(), 200, b"hello"),
    "Chunked": (OK + b"Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 200, b"hello"),
    "leading zeros": (CHUNKED + b"0005\r\nhello\r\n000\r\n\r\n", 200, b"hello"),
    "extension": (CHUNKED + b"5;a=b\r\nhello\r\n0;c\r\n\r\n", 200, b"hello"),
    "trailer": (CHUNKED + b"5\r\nhello\r\n0\r\nx: y\r\n\r\n", 200, b"hello"),
    "interim": (b"HTTP/1.1 103 Hints\r\nlink: x\r\n\r\n" + OK + b"content-length: 5\r\n\r\nhello", 200, b"hello"),
    "close": (b"HTTP/1.0 200 OK\r\n\r\nhello", 200, b"hello"),
}

Read = tuple[int, bytes] | None  # None: refused, or not whole


def by_llhttp(raw: bytes) -> Read:
    """What httptools reads of a whole response."""
    import httptools

    class Seen:
        body = b""
        status = 0
        whole = False

        def on_headers_complete(self) -> None:
            if not self.whole:
                self.status = parser.get_status_code()

        def on_body(self, data: bytes) -> None:
            if not self.whole:
                self.body += data

        def on_message_complete(self) -> None:
            self.whole = self.whole or self.status >= 200

    seen = Seen()
    parser: Any = httptools.HttpResponseParser(seen)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserError:
        return None
    return (seen.status, seen.body) if seen.whole else None


def by_h11(raw: bytes) -> Read:
    """What h11 reads of a whole response to a POST."""
    import h11

    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="POST", target="/", headers=[("host", "h"), ("content-length", "0")]))
    connection.send(h11.EndOfMessage())
    status, body = 0, b""
    try:
        connection.receive_data(raw)
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return status, body
            elif event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return None
    except h11.RemoteProtocolError:
        return None
