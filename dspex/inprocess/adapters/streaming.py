"""Fields out of an answer that is still arriving.

The pieces given for a field, joined, are the text that `parse` would find for it (for text fields: its value).
White space is held back until something follows it, since the end of a field is stripped; so is the begin of what
may become a header. Pure; one object per answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Final

from dspex.inprocess.adapters.chat import HEADER

Piece = tuple[str, str]

_LINE_END: Final = re.compile("\r\n|[\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029]")  # where str.splitlines breaks
_ESCAPES: Final = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class ChatFields:
    """Fields under `[[ ## name ## ]]` headers."""

    def __init__(self, wanted: Collection[str]) -> None:
        self._wanted = wanted
        self._seen: set[str] = set()
        self._name: str | None = None
        self._line = ""  # the line that is arriving, as far as it is not given out
        self._is_open = True  # whether that line may still be a header
        self._held = ""  # white space that is given out only when something follows
        self._has_text = False

    def feed(self, delta: str) -> Iterator[Piece]:
        """The pieces that `delta` completes."""
        self._line += delta
        while end := _LINE_END.search(self._line):
            if end.group() == "\r" and end.end() == len(self._line):
                break  # the rest of a Windows line end may follow
            line, self._line = self._line[: end.start()], self._line[end.end() :]
            yield from self._ended(line)
            self._is_open = True
        yield from self._begun()

    def finish(self) -> Iterator[Piece]:
        """What was held back when the answer ends."""
        line, self._line = self._line.rstrip("\r"), ""
        yield from self._ended(line)

    def _ended(self, line: str) -> Iterator[Piece]:
        header = HEADER.match(line.strip()) if self._is_open else None
        if header is None:
            yield from self._text(line)
            self._held += "\n"
            return
        name = header.group(1)
        self._name = name if name in self._wanted and name not in self._seen else None
        self._seen.add(name)
        self._held, self._has_text = "", False
        if rest := line[header.end() :].strip():
            yield from self._text(rest)
            self._held += "\n"

    def _begun(self) -> Iterator[Piece]:
        """The begin of a line, as soon as it cannot become a header."""
        if self._is_open and _may_be_header(self._line):
            return
        self._is_open = False
        cut = len(self._line) - 1 if self._line.endswith("\r") else len(self._line)
        line, self._line = self._line[:cut], self._line[cut:]
        yield from self._text(line)

    def _text(self, text: str) -> Iterator[Piece]:
        kept = text.rstrip()
        if not kept:
            self._held += text
            return
        begin = self._held + kept if self._has_text else (self._held + kept).lstrip()
        self._held, self._has_text = text[len(kept) :], True
        if self._name is not None:
            yield self._name, begin


class JsonFields:
    """Members of one JSON object: text as it comes, other values when they are whole."""

    def __init__(self, wanted: Collection[str]) -> None:
        self._wanted = wanted
        self._seen: set[str] = set()
        self._rest = ""
        self._depth = 0
        self._name: str | None = None
        self._state = self._before_object

    def feed(self, delta: str) -> Iterator[Piece]:
        """The pieces that `delta` completes."""
        self._rest += delta
        moved = True
        while moved and self._rest:
            before = (len(self._rest), self._state)
            piece = self._state()
            if piece is not None and piece[0] in self._wanted and piece[1]:
                yield piece
            moved = (len(self._rest), self._state) != before

    def finish(self) -> Iterator[Piece]:
        """Nothing: an object that ends too early gives no more pieces."""
        return iter(())

    def _before_object(self) -> Piece | None:
        begin = self._rest.find("{")
        self._rest = "" if begin < 0 else self._rest[begin + 1 :]
        if begin >= 0:
            self._state = self._before_name
        return None

    def _before_name(self) -> Piece | None:
        self._rest = self._rest.lstrip(" \t\r\n,")
        if self._rest[:1] == '"':
            end = _string_end(self._rest)
            if end is not None:
                self._name, self._rest = _unescaped(self._rest[:end]), self._rest[end:]
                self._state = self._before_value
        elif self._rest:
            self._state = self._after  # the end of the object, or something that only a repair could read
        return None

    def _before_value(self) -> Piece | None:
        self._rest = self._rest.lstrip(" \t\r\n:")
        if self._rest:
            is_new = self._name is not None and self._name not in self._seen
            self._seen.add(self._name or "")
            self._name = self._name if is_new else None
            if self._rest[0] == '"':
                self._rest = self._rest[1:]
                self._state = self._in_text
            else:
                self._state = self._in_value
        return None

    def _in_text(self) -> Piece | None:
        text, used, ended = _text_so_far(self._rest)
        self._rest = self._rest[used:]
        if ended:
            self._state = self._before_name
        return (self._name or "", text)

    def _in_value(self) -> Piece | None:
        end = _value_end(self._rest)
        if end is None:
            return None
        value, self._rest = self._rest[:end].strip(), self._rest[end:]
        self._state = self._before_name
        return (self._name or "", value)

    def _after(self) -> Piece | None:
        self._rest = ""
        return None


def _may_be_header(line: str) -> bool:
    begin = line.lstrip()
    return begin.startswith("[[ ## ") or "[[ ## ".startswith(begin)


def _string_end(text: str) -> int | None:
    """The offset after the string that begins `text`; None when it is not whole."""
    at = 1
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == '"':
            return at + 1
        at += 1
    return None


def _unescaped(text: str) -> str | None:
    try:
        return str(json.loads(text))
    except ValueError:
        return None


def _text_so_far(text: str) -> tuple[str, int, bool]:
    """(the decoded text, characters used, whether the closing quote was met); a half escape is left for later."""
    made: list[str] = []
    at = 0
    while at < len(text):
        mark = text[at]
        if mark == '"':
            return "".join(made), at + 1, True
        if mark != "\\":
            made.append(mark)
            at += 1
            continue
        decoded, size = _escape(text, at)
        if not size:
            break
        made.append(decoded)
        at += size
    return "".join(made), at, False


def _escape(text: str, at: int) -> tuple[str, int]:
    """(the character of the escape at `at`, its length); length 0 when it is not whole yet."""
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


def _value_end(text: str) -> int | None:
    """The offset after the number, word, array or object that begins `text`; None when it may go on."""
    depth, at = 0, 0
    while at < len(text):
        mark = text[at]
        if mark == '"':
            end = _string_end(text[at:])
            if end is None:
                return None
            at += end
            continue
        if mark in "[{":
            depth += 1
        elif mark in "]}" and depth:
            depth -= 1
            if not depth:
                return at + 1
        elif mark in ",}" and not depth:
            return at
        at += 1
    return None
