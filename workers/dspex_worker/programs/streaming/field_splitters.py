"""Split an answer into its fields while it arrives, by each adapter's format. Pure.

Splitting does not depend on how the provider cuts the text into chunks, and a header never leaks into a field.
"""

from __future__ import annotations

import json
import re
from typing import Any

import jiter

from ...types.xml_fields import XMLFields

Piece = tuple[str, str]  # field, text


class MarkSplitter:
    """Sends a field's text as far as it cannot be part of a mark; white space waits until more text follows it."""

    def __init__(self, fields: list[str]) -> None:
        self._fields = fields
        self._text = ""
        self._sent = 0  # how far into the text
        self._field: str | None = None
        self._has_begun = False

    def feed(self, text: str) -> list[Piece]:
        self._text += text
        pieces: list[Piece] = []
        while (mark := self._mark().search(self._text, self._sent)) is not None:
            pieces += self._send(mark.start())
            self._field, self._has_begun, self._sent = self._field_after(mark), False, self._end_of(mark)
        return pieces + self._send(self._safe_end())

    def end(self) -> list[Piece]:
        return self._send(len(self._text))

    def _send(self, end: int) -> list[Piece]:
        segment = self._text[self._sent : end]
        if self._field is None:
            self._sent = max(self._sent, end)
            return []
        kept = segment.rstrip()
        if not kept:
            return []
        self._sent += len(kept)
        shown = kept if self._has_begun else kept.lstrip()
        self._has_begun = True
        return [(self._field, shown)]

    def _mark(self) -> re.Pattern[str]:
        raise NotImplementedError

    def _field_after(self, mark: re.Match[str]) -> str | None:
        raise NotImplementedError

    def _end_of(self, mark: re.Match[str]) -> int:
        return mark.end()

    def _safe_end(self) -> int:
        raise NotImplementedError


class ChatSplitter(MarkSplitter):
    """ChatAdapter's format: `[[ ## field ## ]]` at the beginning of a line opens a field."""

    _HEADER = re.compile(r"^[ \t]*\[\[ ## (\w+) ## \]\]", re.MULTILINE)
    _OPENING = "[[ ## "

    def _mark(self) -> re.Pattern[str]:
        return self._HEADER

    def _field_after(self, mark: re.Match[str]) -> str | None:
        if mark[1] not in self._fields:
            return None
        self._fields = [name for name in self._fields if name != mark[1]]  # of two, DSPy takes the first
        return mark[1]

    def _end_of(self, mark: re.Match[str]) -> int:
        # DSPy measures a header without its indent and cuts the line with it (chat_adapter.py): `  [[ ## a ## ]]x`
        # gives "]]x". The value says so in the end, so the stream does too.
        indent = mark.start(1) - len(self._OPENING) - mark.start()
        return mark.end() - indent

    def _safe_end(self) -> int:
        line = max(self._text.rfind("\n") + 1, 0)
        tail = self._text[line:].lstrip(" \t")
        may_become_mark = tail.startswith(self._OPENING) or self._OPENING.startswith(tail)
        return max(line, self._sent) if may_become_mark and line >= self._sent else len(self._text)


class XMLSplitter:
    """XMLAdapter's format: outermost elements are fields."""

    def __init__(self, fields: list[str], texts: list[str]) -> None:
        self._pieces = XMLFields(fields, texts)

    def feed(self, text: str) -> list[Piece]:
        return list(self._pieces.feed(text))

    def end(self) -> list[Piece]:
        return list(self._pieces.finish())


class JSONSplitter:
    """JSONAdapter's format: strings are shown as they grow, other values once they are whole."""

    def __init__(self, fields: list[str]) -> None:
        self._fields = fields
        self._text = ""
        self._shown: dict[str, int] = {}

    def feed(self, text: str) -> list[Piece]:
        self._text += text
        return self._pieces(is_last=False)

    def end(self) -> list[Piece]:
        return self._pieces(is_last=True)

    def _pieces(self, *, is_last: bool) -> list[Piece]:
        start = self._text.find("{")
        try:
            found = jiter.from_json(self._text[start:].rstrip("`\n ").encode(), partial_mode="trailing-strings")
        except ValueError:
            return []
        if start < 0 or not isinstance(found, dict):
            return []
        names = list(found)
        pieces: list[Piece] = []
        for name, value in found.items():
            if name in self._fields:
                pieces += self._grown(name, value, is_whole=is_last or name != names[-1])
        return pieces

    def _grown(self, name: str, value: Any, *, is_whole: bool) -> list[Piece]:
        shown = self._shown.get(name, 0)
        if not isinstance(value, str):
            if not is_whole or shown:
                return []
            value = json.dumps(value, ensure_ascii=False)
        self._shown[name] = len(value)
        return [(name, value[shown:])] if len(value) > shown else []
