"""Bound what validating a value by pydantic can cost beyond its length: checks made from the type.

Three kinds of type let a short answer hold the interpreter's lock for hours, or take gigabytes, and pydantic cannot be
interrupted:

- a union that holds itself (`class Not: of: "Not | And | Or"`) is tried choice by choice at every level, so each level
  doubles the work: 20 levels take 0.6 s, 40 a week. With a discriminator there is one choice.
- sets, and mappings whose keys are no text, hash numbers, whose hashes a hostile answer can make equal: n² work.
- of long lists of choices (`Literal`, enums) pydantic quotes each for every wrong part: a list of 3,000 categories and
  an answer of 200 KB took 2 GB.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal, Union, cast, get_args, get_origin

from ..types.parse_budget import budget_for

VISITS_MOST: Final = 400_000  # of a part of a value by a choice of a union: 0.5 us each
HASHED_MOST: Final = 4096  # numbers in one set; as many in several smaller ones cost less

QUOTED_MOST: Final = 128 * 1024 * 1024  # characters of choices in what pydantic says of the wrong parts
QUOTED_FEW: Final = 64  # characters of choices that no answer has too many parts for

_SETS: Final = (set, frozenset, typing.AbstractSet)
_LISTS: Final = (list, tuple, *_SETS)
_NUMERIC: Final = frozenset("0123456789+-.")
Guard = Callable[[Any], None]


def guard_of(annotation: Any) -> Guard | None:
    """Return a check to run before a value is validated by this type (raises TooCostly); None for most types."""
    found = _TypeContents()
    found.visit(annotation, ())
    guards: list[Guard] = []
    if found.is_recursive and max(found.mappings, found.lists) > 1:
        guards.append(lambda value: _require_few_visits(value, found.mappings, found.lists))
    if found.hashes:
        guards.append(_require_few_hashed)
    if found.quoted > QUOTED_FEW and found.repeats:
        guards.append(lambda value: _require_few_quoted(value, found.quoted))
    return functools.partial(_each, guards) if guards else None


def _each(guards: list[Guard], value: Any) -> None:
    for guard in guards:
        guard(value)


@dataclasses.dataclass(slots=True)
class _TypeContents:
    """The contents of a type, at any depth: the most choices of a union that take a mapping, or a list."""

    mappings: int = 1
    lists: int = 1
    is_recursive: bool = False
    hashes: bool = False
    quoted: int = 0  # characters of the longest list of choices
    repeats: bool = False  # whether there can be many values of a part
    _seen: set[Any] = dataclasses.field(default_factory=set)

    def visit(self, annotation: Any, within: tuple[Any, ...]) -> None:
        """Look into the type; `within`: the classes that it is a part of."""
        origin = get_origin(annotation)
        if origin is Literal or isinstance(annotation, enum.EnumMeta):
            members = cast("type[enum.Enum]", annotation)
            choices = get_args(annotation) if origin is Literal else [member.value for member in members]
            self.quoted = max(self.quoted, sum(len(repr(choice)) + 2 for choice in choices))
            return
        if origin in (Union, types.UnionType):
            self._count(get_args(annotation))
        else:
            self.repeats = self.repeats or bool(get_args(annotation))
        self.hashes = self.hashes or _hashes_numbers(origin or annotation, get_args(annotation))
        for part in _parts(annotation):
            self.visit(part, within)
        kind = origin if hasattr(origin, "model_fields") else annotation
        if not _has_members(kind):
            return
        if kind in within:
            self.is_recursive = self.repeats = True
        if kind not in self._seen:
            self._seen.add(kind)
            for member in _members(kind):
                self.visit(member, (*within, kind))

    def _count(self, choices: tuple[Any, ...]) -> None:
        kinds = [get_origin(choice) or choice for choice in choices]
        self.mappings = max(self.mappings, sum(_takes_mapping(kind) for kind in kinds))
        self.lists = max(self.lists, sum(kind in _LISTS or _is_root(kind) for kind in kinds))


def _parts(annotation: Any) -> tuple[Any, ...]:
    """Return the types that this one is made of; the choices of a union with a discriminator, of which one is tried."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__value__"):  # `type Tree = ...`
        return (annotation.__value__,)
    if origin is not typing.Annotated:
        return arguments
    inner, *marks = arguments
    return get_args(inner) if any(getattr(mark, "discriminator", None) for mark in marks) else (inner,)


def _has_members(kind: Any) -> bool:
    if hasattr(kind, "__value__"):
        return True
    is_class = inspect.isclass(kind) and get_origin(kind) is None
    return is_class and (hasattr(kind, "model_fields") or dataclasses.is_dataclass(kind) or typing.is_typeddict(kind))


def _members(kind: Any) -> Iterator[Any]:
    if hasattr(kind, "__value__"):
        yield kind.__value__
    elif hasattr(kind, "model_fields"):
        for field in kind.model_fields.values():
            yield from get_args(field.annotation) if field.discriminator else (field.annotation,)
    else:
        yield from typing.get_type_hints(kind, include_extras=True).values()


def _takes_mapping(kind: Any) -> bool:
    return _has_members(kind) or (inspect.isclass(kind) and issubclass(kind, Mapping))


def _is_root(kind: Any) -> bool:
    return hasattr(kind, "model_fields") and "root" in kind.model_fields


def _hashes_numbers(kind: Any, arguments: tuple[Any, ...]) -> bool:
    if kind in _SETS or (inspect.isclass(kind) and issubclass(kind, set | frozenset)):
        return arguments[:1] != (str,)
    is_mapping = inspect.isclass(kind) and issubclass(kind, Mapping) and bool(arguments)
    return is_mapping and arguments[0] is not str


def _require_few_visits(value: Any, mappings: int, lists: int) -> None:
    visits, left = 0, [(value, 1, 0)]
    while left:
        part, weight, depth = left.pop()
        visits += weight
        if visits > VISITS_MOST:
            budget_for("").refuse(
                f"its type is a union that holds itself, so that validating what is nested {depth} deep takes over "
                f"{VISITS_MOST:,} steps",
                "Give the union a discriminator (pydantic.Field(discriminator=...)), or ask for less nesting.",
            )
        if isinstance(part, dict):
            left.extend((item, weight * mappings, depth + 1) for item in part.values())
        elif isinstance(part, list):
            left.extend((item, weight * lists, depth + 1) for item in part)


def _require_few_quoted(value: Any, quoted: int) -> None:
    parts, most, left = 0, QUOTED_MOST // quoted, [value]
    while left:
        part = left.pop()
        if isinstance(part, list | dict):
            parts += len(part)
            if parts > most:
                budget_for("").refuse(
                    f"it has over {most:,} parts, and of its type some may be one of {quoted:,} characters of choices",
                    "Ask for a shorter list, or for text.",
                )
            left.extend(part.values() if isinstance(part, dict) else part)


def _require_few_hashed(value: Any) -> None:
    pairs, left = 0, [value]
    while left:
        part = left.pop()
        if not isinstance(part, list | dict):
            continue
        numbers = sum(map(_is_numeric, part))  # a mapping's keys
        pairs += numbers * numbers
        if pairs > HASHED_MOST * HASHED_MOST:
            budget_for("").refuse(
                f"it holds {numbers:,} numbers for a set, or for keys, which are at most {HASHED_MOST:,}",
                "Ask for a list.",
            )
        left.extend(part.values() if isinstance(part, dict) else part)


def _is_numeric(item: Any) -> bool:
    if isinstance(item, str):
        return item[:1] in _NUMERIC and item != ""
    return not isinstance(item, dict)
