"""What a response's head must be like, or two readers could read two things: stricter than RFC 9112 allows. Pure.

Everything here is refused by llhttp or by h11 too (`tests/unit/lm/test_http_parsers.py` compares): what a proxy in
between reads otherwise than this client would let one answer's bytes pass for another's.
"""

from __future__ import annotations

import re

from ...errors import LMUnexpectedError
from .body_limit import BODY_LIMIT_SETTING

_TEXT = r"[\t\x20-\x7e\x80-\xff]*+"
_HEADERS = rf"(?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]++:{_TEXT})*+"
_HEAD = re.compile(rf"HTTP/1\.[01] [1-9][0-9]{{2}}(?: {_TEXT})?{_HEADERS}\Z")
_STATUS_LINE = re.compile(r"HTTP/1\.[01] [1-9][0-9]{2}(?:[ \r]|\Z)")
_TRAILERS = re.compile(rf"{_HEADERS}\Z")
_DIGITS_MOST = 20
_CHUNK_LINE = re.compile(rb"([0-9a-fA-F]{1,16})(?:;[\t\x20-\x7e\x80-\xff]*)?")


def require_head(text: str) -> None:
    """Check a head (without the empty line at its end): its status line, and that each other line is a header.

    Not so are lines that are folded, have no name or a space before its colon, or hold a control character.

    Raises:
        LMUnexpectedError: it is not HTTP/1.
    """
    if _HEAD.match(text) is not None:
        return
    if _STATUS_LINE.match(text) is None:
        raise LMUnexpectedError("The endpoint answered something that is not HTTP/1.1.")
    raise LMUnexpectedError("The response's headers hold a line that is no header, or a control character.")


def require_chunked(coding: str, length: str | None, *, is_http_1_0: bool) -> None:
    """Check the transfer encoding of a response, and that it says in no other way how long it is.

    Raises:
        LMUnexpectedError: it does, or has another encoding.
    """
    if coding.lower() != "chunked" or is_http_1_0:
        raise LMUnexpectedError(f"The response has a transfer encoding that was not asked for ({coding[:20]!r}).")
    if length is not None:
        raise LMUnexpectedError("The response says in two ways how long it is.")


def body_length(value: str, most: int) -> int:
    """Return the number that Content-Length says.

    Raises:
        LMUnexpectedError: it is none, or over the limit.
    """
    if value.isdecimal() and value.isascii() and len(value) <= _DIGITS_MOST and (length := int(value)) <= most:
        return length
    raise LMUnexpectedError(
        f"The response's length is not a number of up to {most:,} bytes ({BODY_LIMIT_SETTING} sets another limit)."
    )


def chunk_size(line: bytes) -> int:
    """Return the size that a chunk's first line says (without its line break).

    Raises:
        LMUnexpectedError: it is none.
    """
    found = _CHUNK_LINE.fullmatch(line)
    if found is None:
        raise LMUnexpectedError("The endpoint sent a malformed chunk.")
    return int(found[1], 16)


def require_trailers(raw: bytes) -> None:
    """Check the trailers of a body, which begin with the line break before the first of them.

    Raises:
        LMUnexpectedError: they are no headers.
    """
    if _TRAILERS.match(raw.decode("latin-1")) is None:
        raise LMUnexpectedError("The endpoint sent malformed trailers.")
