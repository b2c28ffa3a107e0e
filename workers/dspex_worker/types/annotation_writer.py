"""Write a type as canonical text, which `annotation_reader` reads as the same type."""

from __future__ import annotations

import collections.abc
import enum
import types
import typing
from collections.abc import Callable
from inspect import isclass
from typing import Any, Literal, Union, get_args, get_origin

from .type_names import CONSTRAINT_WORDS, GENERICS, TEXT_OF

NameOf = Callable[[type], str]


class Unwritable(ValueError):
    """A type that text cannot name: a callable's signature, a type variable."""


def annotation_text(annotation: Any, name_of: NameOf) -> str:
    """Return the canonical text of a type: `Union[str, None]` for every spelling of it, `Literal['a', 'b']`.

    `name_of` names the classes that no table knows, or raises Unwritable.

    Raises:
        Unwritable: text cannot name the type.
    """
    known = TEXT_OF.get(annotation) if getattr(annotation, "__hash__", None) else None
    if known is not None:
        return known
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is None:
        return _class_text(annotation, name_of)
    if origin is Literal:
        return f"Literal[{', '.join(_literal_text(each) for each in arguments)}]"
    if origin is typing.Annotated:
        metadata = ", ".join(map(_metadata_text, annotation.__metadata__))
        return f"Annotated[{annotation_text(arguments[0], name_of)}, {metadata}]"
    if origin is tuple and not arguments:
        return "tuple[()]"
    name = _origin_text(annotation, origin, name_of)
    return f"{name}[{', '.join('...' if each is ... else annotation_text(each, name_of) for each in arguments)}]"


def _origin_text(annotation: Any, origin: Any, name_of: NameOf) -> str:
    if origin is Union or origin is types.UnionType:
        return "Union"
    alias = getattr(annotation, "_name", None)  # typing.List keeps its own name in prompts
    return alias if alias in GENERICS else _class_text(origin, name_of)


def _class_text(annotation: Any, name_of: NameOf) -> str:
    if annotation is collections.abc.Callable or isinstance(annotation, list):  # and the arguments of one
        raise Unwritable(
            "A callable cannot be written as text, so no worker could read it; use dspy.Tool for functions."
        )
    if annotation in TEXT_OF:
        return TEXT_OF[annotation]
    if not isclass(annotation):
        raise Unwritable(f"The type {annotation!r} cannot be written as text, so no worker could read it.")
    return name_of(annotation)


def _literal_text(value: Any) -> str:
    if isinstance(value, enum.Enum) or not (value is None or isinstance(value, str | int | bytes)):
        raise Unwritable(f"Literal[{value!r}] cannot be written as text; use strings, integers, bytes or None.")
    return repr(value)


def _metadata_text(value: Any) -> str:
    if value is None or isinstance(value, str | int | float):
        return repr(value)
    bounds = getattr(value, "metadata", None)  # pydantic keeps what Field(gt=3) was given as a list of bounds
    if bounds is None:
        raise Unwritable(f"The metadata {value!r} of an Annotated type cannot be written as text.")
    given = dict(_bound(each, value) for each in bounds)
    if value.description is not None:
        given["description"] = value.description
    return f"Field({', '.join(f'{key}={each!r}' for key, each in given.items())})"


def _bound(bound: Any, whole: Any) -> tuple[str, Any]:
    for key in CONSTRAINT_WORDS:
        if (value := getattr(bound, key, None)) is not None:
            return key, value
    raise Unwritable(f"The metadata {whole!r} of an Annotated type cannot be written as text.")
