"""Print what a program returns, and what it streams: text for people, JSON for programs. Standard output alone."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..types.chunk import Chunk
from ..types.prediction import Prediction
from .printing import print_json, print_line, print_piece


def print_result(result: Any, *, as_json: bool) -> None:
    """Print it: a prediction of one field as that field's value, of several as lines with their names."""
    plain = plain_of(result)
    if as_json:
        print_json(plain)
    elif isinstance(result, Prediction):
        _print_fields(plain)
    else:
        _print_value(plain)


def print_stream(items: Iterator[Any], *, as_json: bool, is_single: bool) -> None:
    """Print chunks as they come; with JSON an object a line: {"chunk": {...}}, and {"value": ...} last.

    `is_single`: there is one field, whose name goes without saying.
    """
    shown, last = _ShownFields(named=not is_single), None
    for item in items:
        if not isinstance(item, Chunk):
            last = item
        elif as_json:
            print_json({"chunk": {"field": item.field, "text": item.text}}, indent=None)
        else:
            shown.show(item)
    if as_json:
        print_json({"value": plain_of(last)}, indent=None)
        return
    shown.end()
    if not isinstance(last, Prediction):
        _print_value(plain_of(last))
    elif rest := {name: value for name, value in plain_of(last).items() if not shown.has(name, value)}:
        _print_fields(rest, named=bool(shown.texts))


def plain_of(value: Any) -> Any:
    """Return it as JSON can say it: enums by their values, models as objects, bytes as {"base64": text}."""
    if isinstance(value, Prediction):
        return {name: plain_of(value[name]) for name in value}
    if isinstance(value, Mapping):
        return {str(name): plain_of(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain_of(one) for one in value]
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if value is None or isinstance(value, str | bool | int | float):
        return value
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value, fallback=repr, bytes_mode="base64")


class _ShownFields:
    """What was shown of each field, and of which the current line is."""

    def __init__(self, *, named: bool) -> None:
        self.texts: dict[str, str] = {}
        self._named = named
        self._field: str | None = None

    def show(self, chunk: Chunk) -> None:
        if chunk.field != self._field:
            self.end()
            self._field = chunk.field
            if self._named:
                print_piece(f"{chunk.field}: ")
            self.texts[chunk.field] = ""
        self.texts[chunk.field] += chunk.text
        print_piece(chunk.text)

    def end(self) -> None:
        if self._field is not None:
            print_piece("\n")
        self._field = None

    def has(self, name: str, value: Any) -> bool:
        return self.texts.get(name, "").strip() == _text(value).strip()


def _print_fields(fields: Mapping[str, Any], *, named: bool = False) -> None:
    if len(fields) == 1 and not named:
        _print_value(next(iter(fields.values())))
        return
    for name, value in fields.items():
        text = _text(value)
        print_line(f"{name}:\n{text}" if "\n" in text else f"{name}: {text}")


def _print_value(value: Any) -> None:
    if isinstance(value, str):
        print_line(value)
    else:
        print_json(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
