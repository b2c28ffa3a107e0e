"""What a response's head must be like, or two readers could read two things: stricter than RFC 9112 allows. Pure.

Everything here is refused by llhttp or by h11 too (`tests/unit/lm/test_http_parsers.py` compares): what a proxy in
between reads otherwise than this client would let one answer's bytes pass for another's.
"""

from __future__ import annotations

import re

from ...errors import LMUnexpectedError

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_STATUS_LINE = re.compile(r"HTTP/1\.[01] [1-9][0-9]{2}(?: |\r|\Z)")
_ODD_LINE = re.compile(rf"\r\n(?!{_TOKEN}:)")  # no name, a space before its colon, a line that is folded
_PLAIN = bytes(code for code in range(256) if code in (9, 10, 13) or (code >= 32 and code != 127))
_LENGTH = "\r\ncontent-length:"
_CODING = "\r\ntransfer-encoding:"
_CHUNK_LINE = re.compile(rb"([0-9a-fA-F]{1,16})(?:;[\t\x20-\x7e\x80-\xff]*)?")


def require_head(raw: bytes, text: str) -> None:
    """Check the lines of a head (without the empty one); `text` is the same as text.

    Raises:
        LMUnexpectedError: it is not HTTP/1.
    """
    if _STATUS_LINE.match(text) is None:
        raise LMUnexpectedError("The endpoint answered something that is not HTTP/1.1.")
    if not _are_lines(raw, text):
        raise LMUnexpectedError("The response's headers hold a line that is no header, or a control character.")


def require_one_length(folded: str, coding: str, *, is_http_1_0: bool) -> None:
    """Check that a head (in lower case) says once, and in one way, where its body ends.

    Raises:
        LMUnexpectedError: it says more.
    """
    lengths = folded.count(_LENGTH)
    codings = folded.count(_CODING)
    if lengths > 1 or codings > 1 or (lengths and codings):
        raise LMUnexpectedError("The response says twice how long it is, or in two ways.")
    if codings and (coding != "chunked" or is_http_1_0):
        raise LMUnexpectedError(f"The response has a transfer encoding that was not asked for ({coding[:20]!r}).")


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
    if not _are_lines(raw, raw.decode("latin-1")):
        raise LMUnexpectedError("The endpoint sent malformed trailers.")


def _are_lines(raw: bytes, text: str) -> bool:
    """Return whether all lines but the first are headers, and none holds what ends a line for some readers."""
    breaks = text.count("\r\n")
    is_plain = not raw.translate(None, _PLAIN) and text.count("\r") == breaks == text.count("\n")
    return is_plain and _ODD_LINE.search(text) is None
