"""The difference of two texts, word by word, as HTML in which both are escaped. Pure."""

from __future__ import annotations

import difflib
import re

from .escaped_text import escaped

WORDS_MOST = 2000  # of each text: a comparison's time grows with their product
SHARED_LEAST = 0.6  # of both texts' pieces, spaces included; with less in common they are shown one after the other
_PIECES = re.compile(r"\s+|\w+|[^\w\s]")


def word_diff(before: str, after: str) -> str:
    """Return the text after, with what was put in as <ins> and what was taken out as <del>."""
    ours, theirs = _words(before), _words(after)
    if max(len(ours), len(theirs)) > WORDS_MOST:
        return _replaced(before, after)
    matcher = difflib.SequenceMatcher(None, ours, theirs)
    if ours and theirs and matcher.ratio() < SHARED_LEAST:
        return _replaced(before, after)
    found = []
    for kind, i1, i2, j1, j2 in matcher.get_opcodes():
        old, new = "".join(ours[i1:i2]), "".join(theirs[j1:j2])
        if kind == "equal":
            found.append(escaped(new))
            continue
        found.append(f"<del>{escaped(old)}</del>" if old else "")
        found.append(f"<ins>{escaped(new)}</ins>" if new else "")
    return "".join(found)


def _replaced(before: str, after: str) -> str:
    return f"<del>{escaped(before)}</del>\n<ins>{escaped(after)}</ins>"


def _words(text: str) -> list[str]:
    return _PIECES.findall(text[: 40 * WORDS_MOST])
