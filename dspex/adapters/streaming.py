"""Split a streamed answer into fields while it arrives.

The pieces given for a field, joined, are the text that `parse` would find for it (for text fields: its value).
White space is held back until something follows it, since the end of a field is stripped; so is the begin of what
may become a header. What is held is a list of what came, and nothing is looked at twice: the work grows with the
answer's length, however it is cut. Pure; one object per answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator
from typing import Final

from .chat_format import HEADER, HEADER_BEGIN, with_plain_line_ends

Piece = tuple[str, str]

_ESCAPES: Final = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_IN_STRING: Final = re.compile(r'[^"\\]*')
_OUTSIDE: Final = re.compile(r'[^"\[\]{},]*')
_BEFORE_NAME: Final = re.compile(r"[ \t\r\n,]*")
_BEFORE_VALUE: Final = re.compile(r"[ \t\r\n:]*")


class ChatFields:
    """Fields under `[[ ## name ## ]]` headers."""

    def __init__(self, wanted: Collection[str]) -> None:
        self._wanted = wanted
        self._seen: set[str] = set()
        self._name: str | None = None
        self._return = ""  # a carriage return at the end: the rest of a Windows line end may follow
        self._is_open = True  # whether the line that is arriving may still be a header
        self._line: list[str] = []  # that line while it is held, as it came
        self._line_begin = ""  # its first characters that are no blanks, as many as decide
        self._held: list[str] = []  # white space that is given out only when something follows
        self._has_text = False

    def feed(self, delta: str) -> Iterator[Piece]:
        """Yield the pieces that `delta` completes."""
        text = self._return + delta
        self._return = "\r" if text.endswith("\r") else ""
        text = with_plain_line_ends(text[:-1] if self._return else text)
        at = 0
        while at < len(text):
            at, piece = self._step()(text, at)
            if piece is not None:
                yield piece

    def finish(self) -> Iterator[Piece]:
        """Yield what was held back when the answer ends."""
        piece = self._whole_line("")
        if piece is not None:
            yield piece

    def _step(self) -> Callable[[str, int], tuple[int, Piece | None]]:
        if not self._is_open:
            return self._rest_of_line
        return self._held_line if self._line else self._lines

    def _rest_of_line(self, text: str, at: int) -> tuple[int, Piece | None]:
        """Return the rest of a line that is no header."""
        end = text.find("\n", at) + 1
        self._is_open = end > 0
        return end or len(text), self._text(text[at : end or len(text)])

    def _held_line(self, text: str, at: int) -> tuple[int, Piece | None]:
        """More of a line that may be a header."""
        end = text.find("\n", at)
        return (len(text), self._arrived(text[at:])) if end < 0 else (end + 1, self._whole_line(text[at:end]))

    def _lines(self, text: str, at: int) -> tuple[int, Piece | None]:
        """Return the lines up to the next that may be a header, or up to the one that is arriving."""
        header = text.find(HEADER_BEGIN, at)
        begin = text.rfind("\n", at, header if header >= 0 else len(text)) + 1
        if begin:
            return begin, self._text(text[at:begin])
        if header < 0:
            return len(text), self._arrived(text[at:])
        self._is_open = not text[at:header].strip()
        return self._held_line(text, at) if self._is_open else (at, None)

    def _arrived(self, part: str) -> Piece | None:
        """Return the start of a line as soon as it cannot become a header."""
        self._line.append(part)
        self._line_begin = (self._line_begin + part).lstrip()[: len(HEADER_BEGIN)]
        if HEADER_BEGIN.startswith(self._line_begin):
            return None
        self._is_open = False
        return self._text(self._taken_line())

    def _whole_line(self, last: str) -> Piece | None:
        self._line.append(last)
        line = self._taken_line()
        header = HEADER.match(line.strip())
        if header is None:
            return self._text(line + "\n")
        name = header.group(1)
        self._name = name if name in self._wanted and name not in self._seen else None
        self._seen.add(name)
        self._held, self._has_text = [], False
        rest = line[header.end() :].strip()
        return self._text(rest + "\n") if rest else None

    def _taken_line(self) -> str:
        line = "".join(self._line)
        self._line, self._line_begin = [], ""
        return line

    def _text(self, text: str) -> Piece | None:
        if self._name is None:
            return None
        kept = text.rstrip()
        if not kept:
            self._held.append(text)
            return None
        shown = "".join((*self._held, kept)) if self._has_text else kept.lstrip()
        self._held, self._has_text = [text[len(kept) :]], True
        return self._name, shown


class JsonFields:
    """Members of one JSON object: text as it arrives, other values once they are whole."""

    def __init__(self, wanted: Collection[str]) -> None:
        self._left = set(wanted)  # the first member of a name counts, as in `parse`
        self._name: str | None = None  # of the member, when it is wanted
        self._state = self._before_object
        self._kept: list[str] = []  # the begin of a name or value that is not whole
        self._depth = 0  # of the brackets in it
        self._in_string = False
        self._is_escaped = False  # whether a backslash was its last character
        self._escape = ""  # the begin of an escape in a text, at most 11 characters

    def feed(self, delta: str) -> Iterator[Piece]:
        """Yield the pieces that `delta` completes."""
        text, self._escape = self._escape + delta, ""
        at = 0
        while at < len(text):
            at, piece = self._state(text, at)
            if piece and self._name is not None:
                yield self._name, piece

    def finish(self) -> Iterator[Piece]:
        """Yield nothing: an object that ends too early has no more pieces."""
        return iter(())

    # Each state takes the text and an offset into it, and gives the offset after what it took, and what is shown.

    def _before_object(self, text: str, at: int) -> tuple[int, str]:
        begin = text.find("{", at)
        if begin >= 0:
            self._state = self._before_name
        return begin + 1 or len(text), ""

    def _before_name(self, text: str, at: int) -> tuple[int, str]:
        at = _end(_BEFORE_NAME, text, at)
        if at == len(text):
            return at, ""
        if text[at] != '"' or not self._left:
            self._state = self._after  # the end of the object, or something that only a repair could read
            return at, ""
        self._state = self._in_name
        return at + 1, ""

    def _in_name(self, text: str, at: int) -> tuple[int, str]:
        end = self._closing_quote(text, at)
        self._kept.append(text[at:end])
        if end == len(text):
            return end, ""
        name = _unescaped(self._taken())
        self._name = name if name in self._left else None
        self._left.discard(name or "")
        self._state = self._before_value
        return end + 1, ""

    def _before_value(self, text: str, at: int) -> tuple[int, str]:
        at = _end(_BEFORE_VALUE, text, at)
        if at == len(text):
            return at, ""
        is_text = text[at] == '"'
        self._state = self._in_text if is_text else self._in_value
        return at + is_text, ""

    def _in_text(self, text: str, at: int) -> tuple[int, str]:
        shown: list[str] = []
        while at < len(text):
            end = _end(_IN_STRING, text, at)
            shown.append(text[at:end])
            if text[end : end + 1] == '"':
                self._state = self._before_name
                return end + 1, "".join(shown)
            decoded, size = _escaped(text, end) if end < len(text) else ("", 0)
            if not size:
                self._escape = text[end:]  # its rest comes with the next delta
                break
            shown.append(decoded)
            at = end + size
        return len(text), "".join(shown)

    def _in_value(self, text: str, at: int) -> tuple[int, str]:
        end, is_whole = self._value_end(text, at)
        if self._name is not None:
            self._kept.append(text[at:end])
        if not is_whole:
            return end, ""
        self._state = self._before_name
        return end, self._taken().strip()

    def _after(self, text: str, at: int) -> tuple[int, str]:
        return len(text), ""

    def _value_end(self, text: str, at: int) -> tuple[int, bool]:
        """Return (the offset after the number, word, array or object that goes on at `at`, whether it ends there)."""
        while at < len(text):
            if self._in_string:
                at = self._closing_quote(text, at)
                self._in_string = at == len(text)
                at += not self._in_string
                continue
            at = _end(_OUTSIDE, text, at)
            mark = text[at : at + 1]
            if mark and mark in ",}" and not self._depth:
                return at, True
            self._in_string = mark == '"'
            if mark and mark in "[{":
                self._depth += 1
            elif mark and mark in "]}" and self._depth:
                self._depth -= 1
                if not self._depth:
                    return at + 1, True
            at += bool(mark)
        return at, False

    def _closing_quote(self, text: str, at: int) -> int:
        """Return the offset of the quote that ends the string going on at `at`; the text's end when there is none."""
        at += self._is_escaped
        self._is_escaped = False
        while (at := _end(_IN_STRING, text, at)) < len(text) and text[at] == "\\":
            self._is_escaped = at + 1 == len(text)
            at = min(at + 2, len(text))
        return at

    def _taken(self) -> str:
        whole = "".join(self._kept)
        self._kept = []
        return whole


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    """Return the offset after what a pattern, which matches everywhere, takes."""
    match = pattern.match(text, at)
    return match.end() if match else at


def _unescaped(text: str) -> str | None:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return None


def _escaped(text: str, at: int) -> tuple[str, int]:
    """Return (the character of the escape at `at`, its length); length 0 when it is not whole yet."""
    kind = text[at + 1 : at + 2]
    if kind != "u":
        return _ESCAPES.get(kind, kind), 2 if kind else 0
    size = 12 if text[at + 2 : at + 4].lower() in ("d8", "d9", "da", "db") else 6
    if len(text) < at + size:
        return "", 0
    try:
        return str(json.loads(f'"{text[at : at + size]}"')), size
    except ValueError:
        return "�", 6
