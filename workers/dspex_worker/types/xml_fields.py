"""Split a streamed answer in XML into fields while it arrives; both routes show an answer by this.

The pieces of a field, joined, are what its element holds: of a text its value, of other types the elements in it as
they were written. White space is held back until something follows it, since the end of a field is stripped; so is a
tag, or an entity, that has only begun. Nothing is looked at twice: the work grows with the answer's length, however it
is cut. Pure; one object per answer.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

Piece = tuple[str, str]  # field, text

_TAG = re.compile(r"</?([^\s/>]+)")
_CDATA = "<![CDATA["
_OPENINGS = (_CDATA, "<!--", "<?")
_ENDS = {_CDATA: "]]>", "<!--": "-->", "<?": "?>"}
_ENTITY = re.compile(r"&(?:(amp|lt|gt|quot|apos)|#([0-9]{1,7})|#x([0-9a-fA-F]{1,6}));")
_ENTITY_MOST = 10  # characters
_NAMED = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
_CHARACTERS = 0x110000


class XMLFields:
    """Outermost elements of the wanted names; the first of each. `texts` are the fields that are plain text."""

    def __init__(self, wanted: Collection[str], texts: Collection[str] = ()) -> None:
        self._left = set(wanted)
        self._texts = frozenset(texts)
        self._name: str | None = None  # of the open field, when it is wanted
        self._depth = 0  # how many elements are open
        self._is_raw = False  # whether elements came inside the field: what follows is shown as it was written
        self._return = ""  # a carriage return at the end: the rest of a Windows line end may follow
        self._markup: list[str] = []  # a tag, a comment or the like that is arriving
        self._opening = ""  # its first characters, as many as decide what ends it
        self._end = ""  # what ends it; empty until that is known
        self._entity = ""  # the begin of an entity
        self._held: list[str] = []  # white space that is given out only when something follows
        self._has_text = False

    def feed(self, delta: str) -> Iterator[Piece]:
        """Yield the pieces that `delta` completes."""
        text = self._return + delta
        self._return = "\r" if text.endswith("\r") else ""
        text = (text[:-1] if self._return else text).replace("\r\n", "\n").replace("\r", "\n")
        at = 0
        while at < len(text):
            at, shown = self._in_markup(text, at) if self._markup else self._in_text(text, at)
            if shown and self._name is not None:
                yield self._name, shown

    def finish(self) -> Iterator[Piece]:
        """Yield nothing: a field ends with its tag, and an answer without that cannot be read."""
        return iter(())

    # Each takes the text and an offset into it, and gives the offset after what it took, and what is shown.

    def _in_text(self, text: str, at: int) -> tuple[int, str]:
        begin = text.find("<", at)
        end = len(text) if begin < 0 else begin
        shown = self._shown(self._decoded(text[at:end], is_last=begin >= 0)) if self._name is not None else ""
        if begin < 0:
            return end, shown
        self._markup, self._opening, self._end = ["<"], "<", ""
        return begin + 1, shown

    def _in_markup(self, text: str, at: int) -> tuple[int, str]:
        while not self._end:
            if at == len(text):
                return at, ""
            self._opening += text[at]
            self._markup.append(text[at])
            at += 1
            if not any(each.startswith(self._opening) for each in _OPENINGS):
                self._end = ">"
                if self._opening.endswith(">"):
                    return at, self._taken()
            elif self._opening in _ENDS:
                self._end = _ENDS[self._opening]
        before = "".join(self._markup[-2:])[-(len(self._end) - 1) :] if len(self._end) > 1 else ""
        found = (before + text[at : at + len(self._end) - 1]).find(self._end) if before else -1
        end = at + found + len(self._end) - len(before) if found >= 0 else text.find(self._end, at) + len(self._end)
        if found < 0 and end < at + len(self._end):
            self._markup.append(text[at:])
            return len(text), ""
        self._markup.append(text[at:end])
        return end, self._taken()

    def _taken(self) -> str:
        """Take the markup that is whole; return what of it is shown."""
        whole, opening = "".join(self._markup), self._opening
        self._markup = []
        if opening == _CDATA:
            return self._shown(whole[len(_CDATA) : -3]) if self._name is not None else ""
        tag = _TAG.match(whole)
        if opening in _ENDS or whole.startswith("<!"):
            return ""
        if tag is None:  # no markup at all, so that the answer cannot be read in the end
            return self._shown(whole) if self._name is not None else ""
        is_closing, is_empty = whole.startswith("</"), whole.endswith("/>")
        self._depth = max(self._depth - 1, 0) if is_closing else self._depth + 1
        if self._depth == (0 if is_closing else 1):
            self._enter(None if is_closing else tag[1])
            self._name = None if is_empty else self._name
            shown = ""
        else:
            self._is_raw = True
            shown = self._shown(whole) if self._name is not None else ""
        self._depth -= is_empty and not is_closing
        return shown

    def _enter(self, name: str | None) -> None:
        """Begin another field, or none."""
        self._name = name if name in self._left else None
        self._left.discard(name or "")
        self._held, self._has_text, self._is_raw, self._entity = [], False, False, ""

    def _decoded(self, text: str, *, is_last: bool) -> str:
        """Return the text with its entities as characters; the begin of one waits for its rest, unless none comes."""
        if self._is_raw or self._name not in self._texts:
            return text
        text, self._entity = self._entity + text, ""
        begin = text.rfind("&", max(len(text) - _ENTITY_MOST, 0))
        if begin >= 0 and not is_last and ";" not in text[begin:]:
            text, self._entity = text[:begin], text[begin:]
        return _ENTITY.sub(_character, text) if "&" in text else text

    def _shown(self, text: str) -> str:
        kept = text.rstrip()
        if not kept:
            self._held.append(text)
            return ""
        shown = "".join((*self._held, kept)) if self._has_text else kept.lstrip()
        self._held, self._has_text = [text[len(kept) :]], True
        return shown


def _character(entity: re.Match[str]) -> str:
    name, decimal, hexadecimal = entity.groups()
    if name:
        return _NAMED[name]
    code = int(decimal) if decimal else int(hexadecimal, 16)
    return chr(code) if code < _CHARACTERS else entity[0]
