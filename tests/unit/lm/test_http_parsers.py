"""Unit: the client's reading of responses beside that of llhttp and of h11: never more lenient, never another body."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex.errors import LMTransportError, LMUnexpectedError
from dspex.lm.http.http_message import ResponseParser
from tests.support.lm.odd_responses import CHUNKED, OK, REFUSED, TAKEN, Read, by_h11, by_llhttp

WHOLE = [raw for raw, _, _ in TAKEN.values()] + list(REFUSED.values())
PIECES = [
    *(
        b"\r\n",
        b"\r",
        b"\n",
        b" ",
        b"\t",
        b"\0",
        b":",
        b";",
        b"0",
        b"5",
        b"+",
        b"-",
        b"0x",
        b"_",
        b"\x7f",
        b"\xb2",
        b"hello",
    ),
    *(b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n", b"x: y\r\n", b" folded\r\n", b"HTTP/1.1 ", b"200"),
    *(b"5\r\nhello\r\n", b"0\r\n\r\n", b"connection: close\r\n", b"content-length", b"chunked", b", ", b"identity"),
]


def _own(raw: bytes, cut: int = 0) -> Read:
    parser = ResponseParser()
    body = b""
    try:
        for part in (raw[:cut], raw[cut:]) if cut else (raw,):
            if part and not parser.complete:
                parser.feed(part)
                body += parser.take()
        if not parser.complete:
            parser.closed()
    except (LMUnexpectedError, LMTransportError):
        return None
    assert parser.head is not None
    return parser.head.status, body


@pytest.mark.parametrize("kind", REFUSED)
def test_response_that_can_be_read_in_two_ways_is_refused(kind: str) -> None:
    """unit: as one piece, and cut anywhere."""
    raw = REFUSED[kind]
    assert _own(raw) is None
    assert [_own(raw, cut) for cut in range(1, len(raw))] == [None] * (len(raw) - 1)


@pytest.mark.parametrize("kind", TAKEN)
def test_response_that_is_only_unusual_is_read(kind: str) -> None:
    """unit: as one piece, and cut anywhere."""
    raw, *expected = TAKEN[kind]
    assert {_own(raw, cut) for cut in range(len(raw))} == {tuple(expected)}


@settings(max_examples=1500, deadline=None)
@given(st.data())
def test_nothing_is_read_that_other_parsers_refuse_or_read_otherwise(data: st.DataObject) -> None:
    """unit: odd responses, with pieces put in, taken out and doubled."""
    pytest.importorskip("httptools")
    pytest.importorskip("h11")
    raw = data.draw(
        st.sampled_from([*WHOLE, OK + b"content-length: 5\r\n\r\nhello", CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"])
    )
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(raw)))
        end = at + data.draw(st.integers(0, 3))
        raw = raw[:at] + data.draw(st.sampled_from([b"", *PIECES])) + raw[end:]
    read = _own(raw)
    if read is None or _is_closed_by_its_peer(raw):
        return
    others = {by_llhttp(raw), by_h11(raw)}
    if read[0] in (204, 304):  # llhttp reads on where one of these has a length
        others.discard(None)
    assert read in others, (raw, read, others)
    assert not {other for other in others if other is not None and other != read}, (raw, read, others)


def _is_closed_by_its_peer(raw: bytes) -> bool:
    """Whether the body ends with the connection, which the other parsers are not told of here."""
    heads = raw.lower().split(b"\r\n\r\n")
    last = next((head for head in heads if not head.startswith((b"http/1.1 1", b"http/1.0 1"))), b"")
    return b"\r\ncontent-length:" not in last and b"\r\ntransfer-encoding:" not in last
