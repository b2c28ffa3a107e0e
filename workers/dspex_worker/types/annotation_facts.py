"""Inspect annotations: the classes in them, whether they allow None, whether their values need validating."""

from __future__ import annotations

import enum
import inspect
import re
import types
import typing
from collections.abc import Iterator
from inspect import isclass
from typing import Any, Final, Literal, Union, get_args, get_origin

from .type_names import TEXT_OF

_TEXT_WORDS: Final = frozenset({"str", "Any", "typing.Any", "object", "Optional[str]", "typing.Optional[str]"})
_AS_SENT: Final = frozenset({str, int, float, bool, type(None), list, dict, Any})


def classes_in(annotation: Any) -> Iterator[type]:
    """Yield every class of the user's, or of DSPy's, that the annotation names, in order, with repetitions."""
    origin = get_origin(annotation)
    if isclass(annotation) and origin is None:
        if annotation not in TEXT_OF:
            yield annotation
        return
    if origin is Literal or origin is None:
        return
    if isclass(origin) and origin not in TEXT_OF and origin is not types.UnionType:  # pyright: ignore[reportUnnecessaryComparison] - it is a class
        yield origin
    for argument in get_args(annotation):
        yield from classes_in(argument)


def allows_none(annotation: Any) -> bool:
    """Whether None is a value of this type: `None` itself, or a union that holds it."""
    if annotation is None or annotation is type(None):
        return True
    origin = get_origin(annotation)
    if origin is typing.Annotated:
        return allows_none(get_args(annotation)[0])
    return (origin is Union or origin is types.UnionType) and any(map(allows_none, get_args(annotation)))


def takes_text(annotation: Any) -> bool:
    """Whether a text is a value of this type as it is; of a parameter without a type too. It may be text itself."""
    if isinstance(annotation, str):  # of code that postpones its annotations
        return not _TEXT_WORDS.isdisjoint(re.split(r"\s*\|\s*", annotation.strip()))
    if annotation is Any or annotation is inspect.Parameter.empty or annotation is object:
        return True
    origin = get_origin(annotation)
    if origin is typing.Annotated:
        return takes_text(get_args(annotation)[0])
    if origin is Union or origin is types.UnionType:
        return any(map(takes_text, get_args(annotation)))
    if origin is Literal:
        return all(isinstance(value, str) for value in get_args(annotation))
    return isclass(annotation) and issubclass(annotation, str | enum.Enum)


def without_metadata(annotation: Any) -> Any:
    """Return a field's own type: what an outermost Annotated adds has no effect there, in DSPy as here."""
    while get_origin(annotation) is typing.Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def is_rich(annotation: Any) -> bool:
    """Whether input values are validated: DSPy gets these typed, and everything else as it was sent."""
    origin = get_origin(annotation)
    if origin is None:
        return annotation not in _AS_SENT
    if origin is Literal:
        return False
    if origin is typing.Annotated:  # constraints are shown to the model, not enforced
        return is_rich(get_args(annotation)[0])
    return origin in (tuple, set, frozenset) or any(is_rich(part) for part in get_args(annotation) if part is not ...)
