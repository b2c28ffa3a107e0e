"""Take out of a text what a terminal or a log's reader would act on: untrusted words are shown, and do nothing.

Control characters move the cursor, set titles and clipboards, or begin a line that looks like another's; marks of text
direction show a line's end before its beginning. Pure.
"""

from __future__ import annotations

import re

# ASCII's control characters but tab and line feed, Latin-1's, line separators, and what embeds or overrides a direction
# (Unicode Technical Report 36); mere marks of direction, which texts of some languages need, stay.
_ACTIVE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def inert(text: str) -> str:
    """Return the text with each such character as its escape; tabs and line feeds stay."""
    return _ACTIVE.sub(_escaped, text)


def inert_line(text: str) -> str:
    """Return the text on one line, as `inert`."""
    return inert(text).replace("\n", "\\n")


def encodable(text: str) -> str:
    """Return the text, such as a path that is not UTF-8, with each byte that no UTF-8 has as its escape."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
