"""Tell where in a TOML file each key stands: tomllib tells values only. Pure.

It reads a file that tomllib has read, so it need not judge: strings and brackets are skipped, keys are noted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

Path = tuple[str, ...]

_PART = r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'"""
_KEY = re.compile(rf"\s*((?:{_PART})(?:\s*\.\s*(?:{_PART}))*)\s*=")
_HEADER = re.compile(rf"\s*\[\[?\s*((?:{_PART})(?:\s*\.\s*(?:{_PART}))*)\s*\]\]?")
_ONE = re.compile(_PART)
_SKIPPED = re.compile(r'''"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?'{3,5}|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|#[^\n]*''', re.DOTALL)


@dataclass(frozen=True, slots=True)
class SettingsPlace:
    """A place in a file; both numbers begin at 1."""

    line: int
    column: int


@dataclass
class SettingsPlaces:
    """Where the keys of a TOML file stand."""

    places: dict[Path, SettingsPlace] = field(default_factory=dict)

    @classmethod
    def of_text(cls, text: str) -> SettingsPlaces:
        """Return the places of all keys and tables; the first one counts."""
        found = cls()
        for path, place in _keys(text):
            for length in range(1, len(path) + 1):
                found.places.setdefault(path[:length], place)
        return found

    def of_key(self, key: str) -> SettingsPlace | None:
        """Return where a dotted key stands, else the table that it would be in."""
        by_name = {".".join(path): place for path, place in self.places.items()}  # a part may hold dots itself
        while key:
            if key in by_name:
                return by_name[key]
            key = key.rpartition(".")[0]
        return None


def _keys(text: str) -> Iterator[tuple[Path, SettingsPlace]]:
    table: Path = ()
    at = 0
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        line = text[at:end]
        if header := _HEADER.match(line):
            table = _parts(header[1])
            yield table, _place(text, at + header.start(1))
            at = end + 1
        elif key := _KEY.match(line):
            path = table + _parts(key[1])
            yield path, _place(text, at + key.start(1))
            value = at + key.end()
            at = _end_of_value(text, value)
            yield from _inline(text[value:at], path, text, value)
        else:
            at = end + 1


def _end_of_value(text: str, at: int) -> int:
    """Return where the line after a value begins; arrays and long strings have several lines."""
    depth = 0
    while at < len(text):
        if skipped := _SKIPPED.match(text, at):
            at = skipped.end()
            continue
        character = text[at]
        depth += (character in "[{") - (character in "]}")
        at += 1
        if character == "\n" and depth <= 0:
            break
    return at


def _inline(value: str, path: Path, text: str, begin: int) -> Iterator[tuple[Path, SettingsPlace]]:
    """Yield the keys of an inline table, one level of them."""
    if value.lstrip()[:1] == "{":
        blank = _SKIPPED.sub(lambda found: " " * len(found[0]), value)
        for key in re.finditer(rf"[{{,]\s*({_PART})\s*=", blank):
            yield (*path, *_parts(key[1])), _place(text, begin + key.start(1))


def _parts(dotted: str) -> Path:
    return tuple(part[1:-1] if part[0] in "\"'" else part for part in _ONE.findall(dotted))


def _place(text: str, at: int) -> SettingsPlace:
    return SettingsPlace(text.count("\n", 0, at) + 1, at - (text.rfind("\n", 0, at) + 1) + 1)
