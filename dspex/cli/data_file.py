"""Read the rows of a data file: JSON lines, a JSON list, or CSV; each with its line, for errors."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InvalidInput
from .named_values import NamedValue
from .shell_program import InputRules

STDIN = "-"


@dataclass(frozen=True, slots=True)
class DataRow:
    """One row: where it stands ("line 3", "row 3"), and its fields."""

    place: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file's rows; `is_text`: its values have no types of their own."""

    name: str
    rows: Sequence[DataRow]
    is_text: bool = False

    def examples(self, inputs: Sequence[str], rules: InputRules) -> list[dict[str, Any]]:
        """Return the rows as examples whose inputs are these fields.

        Raises:
            InvalidInput: a row lacks one; it names the row.
        """
        for row in self.rows:
            if missing := [name for name in inputs if name not in row.fields]:
                has = ", ".join(row.fields) or "nothing"
                raise InvalidInput(f"{self.name}, {row.place}: it lacks the input {missing[0]!r}; it has {has}.")
        if not self.is_text:
            return [row.fields for row in self.rows]
        return [{name: _typed(name, text, inputs, rules) for name, text in row.fields.items()} for row in self.rows]

    def place(self, index: int) -> str:
        """Return where a row stands, for people."""
        return f"{self.name}, {self.rows[index].place}"


def read_data(path: str, limit: int | None) -> DataFile:
    """Return the rows of a file, the first `limit` of them.

    Raises:
        InvalidInput: it cannot be read, holds no rows, or one of them is none: it names the line.
    """
    kind = ".jsonl" if path == STDIN else Path(path).suffix.lower()
    readers = {".jsonl": _lines, ".ndjson": _lines, ".json": _list, ".csv": _csv}
    if kind not in readers:
        raise InvalidInput(f"{path!r} is no .jsonl, .json or .csv file.")
    name = "standard input" if path == STDIN else path
    rows = list(readers[kind](name, _text_of(path)))[:limit]
    if not rows:
        raise InvalidInput(f"{name} holds no rows.")
    return DataFile(name, rows, is_text=kind == ".csv")


def _text_of(path: str) -> str:
    try:
        if path != STDIN:
            return Path(path).read_bytes().decode("utf-8-sig")
        if sys.stdin is None:  # the shell closed it
            raise InvalidInput("The rows are to come from standard input, which is closed.")
        return sys.stdin.read()
    except OSError as error:
        raise InvalidInput(f"The file {path!r} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path!r} is not text in UTF-8: {error.reason} at byte {error.start}.") from None


def _lines(name: str, text: str) -> Iterator[DataRow]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _object(name, f"line {number}", _parsed(name, f"line {number}", line))


def _list(name: str, text: str) -> Iterator[DataRow]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{name} is not valid JSON: {error}.") from None
    if not isinstance(rows, list):
        raise InvalidInput(f"{name} holds no list of objects but {_kind(rows)}.")
    for number, row in enumerate(rows, start=1):
        yield _object(name, f"row {number}", row)


def _csv(name: str, text: str) -> Iterator[DataRow]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    try:
        for row in reader:
            place = f"line {reader.line_num}"
            if not row:
                continue
            if header is None:
                header = row
                if len(set(header)) < len(header):
                    raise InvalidInput(f"{name}, {place}: two columns have one name.")
                continue
            if len(row) != len(header):
                raise InvalidInput(f"{name}, {place}: it has {len(row)} columns, and the header {len(header)}.")
            yield DataRow(place, dict(zip(header, row, strict=True)))
    except csv.Error as error:
        raise InvalidInput(f"{name}, line {reader.line_num}: it is not valid CSV: {error}.") from None


def _parsed(name: str, place: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{name}, {place}: it is not valid JSON: {error}.") from None


def _object(name: str, place: str, row: Any) -> DataRow:
    if not isinstance(row, dict):
        raise InvalidInput(f"{name}, {place}: it is {_kind(row)}, and a row is an object of field names to values.")
    return DataRow(place, row)


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _typed(name: str, text: str, inputs: Sequence[str], rules: InputRules) -> Any:
    as_text = name not in inputs or name in rules.texts or name not in rules.names
    return NamedValue(text, is_json=False).read(as_text=as_text)
