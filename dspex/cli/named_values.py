"""Read a program's inputs from the words of a command line: name=value, name:=JSON, one JSON object, @file and '-'."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InvalidInput

_WORD = re.compile(r"([^\W\d]\w*)(:?=)(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class NamedValue:
    """One value as it was written; what `name=` means depends on who takes it."""

    written: Any
    is_json: bool  # it was given as JSON: `written` is the value

    def read(self, *, as_text: bool) -> Any:
        """Return the value: as it was written where it is to be text, else what it means as JSON, if anything."""
        if self.is_json or as_text:
            return self.written
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(self.written)
        return self.written


def read_words(words: Sequence[str], *, what: str = "input") -> dict[str, NamedValue]:
    """Return the values that the words name.

    Raises:
        InvalidInput: a word is neither name=value nor, alone, a JSON object; a file cannot be read; a name comes twice.
    """
    if len(words) == 1 and (words[0] == "-" or words[0].lstrip().startswith("{")):
        return _of_object(_stdin() if words[0] == "-" else words[0])
    found: dict[str, NamedValue] = {}
    stdin = _once(_stdin)
    for word in words:
        name, value = _named(word, what, stdin)
        if name in found:
            raise InvalidInput(f"The {what} {name!r} is given twice.", field=name)
        found[name] = value
    return found


def _named(word: str, what: str, stdin: Callable[[], str]) -> tuple[str, NamedValue]:
    match = _WORD.fullmatch(word)
    if match is None:
        raise InvalidInput(f"{word!r} is no {what}: write name=value, or name:=JSON, or one JSON object.")
    name, sign, written = match.groups()
    if written == "-":
        written = stdin()
    elif written.startswith("@@"):
        written = written[1:]
    elif written.startswith("@"):
        written = _text_of(written[1:], name)
    if sign == "=":
        return name, NamedValue(written, is_json=False)
    try:
        return name, NamedValue(json.loads(written), is_json=True)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"The value of {name}:= is not valid JSON: {error}.", field=name) from None


def _of_object(text: str) -> dict[str, NamedValue]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"The inputs are not valid JSON: {error}.") from None
    if not isinstance(value, dict):
        raise InvalidInput("The inputs must be one JSON object.")
    return {name: NamedValue(one, is_json=True) for name, one in value.items()}


def _text_of(path: str, name: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInput(
            f"The file {path!r} for {name!r} cannot be read: {error.strerror}. (A text's own @ at its begin is @@.)",
            field=name,
        ) from None
    except ValueError:
        raise InvalidInput(f"The file {path!r} for {name!r} is not text in UTF-8.", field=name) from None


def _stdin() -> str:
    if sys.stdin is None:  # the shell closed it, as with `<&-`
        raise InvalidInput("A value is to come from standard input, which is closed.")
    try:
        return sys.stdin.read().removesuffix("\n")
    except ValueError:
        raise InvalidInput("What comes from standard input is not text in UTF-8.") from None


def _once(read: Callable[[], str]) -> Callable[[], str]:
    kept: list[str] = []

    def reader() -> str:
        if kept:
            raise InvalidInput("Only one value can come from standard input.")
        kept.append(read())
        return kept[0]

    return reader
