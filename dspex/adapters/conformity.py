"""Tell whether a value is of a type, member by member, without running a validator of the user's."""

from __future__ import annotations

import collections.abc
import dataclasses
import types
import typing
from inspect import isclass
from typing import Any, Final, Literal, Union, get_args, get_origin

_ITEMS: Final = (list, set, frozenset, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_MAPPINGS: Final = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_NUMBERS: Final[dict[Any, tuple[type, ...]]] = {float: (float, int), complex: (complex, float, int)}


def conforms(value: Any, annotation: Any) -> bool:
    """Whether the value is what pydantic could have made for this type; forms that are not known conform."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return _is_customized(annotation.__metadata__) or conforms(value, arguments[0])
    if origin is Union or origin is types.UnionType:
        return any(conforms(value, each) for each in arguments)
    if origin is Literal:
        return value in arguments
    if origin is tuple:
        return isinstance(value, tuple) and _has_items(value, arguments)
    if origin in _MAPPINGS:
        return isinstance(value, origin) and _has_entries(value, arguments)
    if origin in _ITEMS:
        return isinstance(value, origin) and (not arguments or all(conforms(item, arguments[0]) for item in value))
    if annotation is None or annotation is type(None):
        return value is None
    if annotation is Any:  # a class, since Python 3.11
        return True
    return _is_of_class(value, annotation) if origin is None and isclass(annotation) else True


def _has_items(value: tuple[Any, ...], arguments: tuple[Any, ...]) -> bool:
    if len(arguments) == 2 and arguments[1] is ...:
        return all(conforms(item, arguments[0]) for item in value)
    return not arguments or (len(value) == len(arguments) and all(map(conforms, value, arguments)))


def _has_entries(value: Any, arguments: tuple[Any, ...]) -> bool:
    return not arguments or all(
        conforms(key, arguments[0]) and conforms(item, arguments[1]) for key, item in value.items()
    )


def _is_of_class(value: Any, kind: Any) -> bool:
    if issubclass(kind, dict) and hasattr(kind, "__total__"):  # a TypedDict, of typing or of typing_extensions
        return isinstance(value, dict)
    if hasattr(kind, "__get_pydantic_core_schema__") and not hasattr(kind, "model_fields"):
        return True  # a type that makes what it likes
    if not isinstance(value, _NUMBERS.get(kind, (kind,))):
        return False
    if hasattr(kind, "model_fields"):
        return _has_members(value)
    if dataclasses.is_dataclass(value) and not hasattr(kind, "__pydantic_fields__"):
        return _has_fields(value)
    return True


def _has_members(value: Any) -> bool:
    """Whether each member of a model is of its type, as far as none of its own code made it."""
    decorators = type(value).__pydantic_decorators__
    if decorators.model_validators or decorators.root_validators or decorators.validators:
        return True
    changed = {name for found in decorators.field_validators.values() for name in found.info.fields}
    return all(
        name in changed or "*" in changed or _is_customized(field.metadata) or _fits_member(value, name, field)
        for name, field in type(value).model_fields.items()
    )


def _fits_member(value: Any, name: str, field: Any) -> bool:
    held = vars(value).get(name)
    is_default = not field.is_required() and field.default_factory is None and held == field.default
    return is_default or conforms(held, field.annotation)


def _has_fields(value: Any) -> bool:
    try:
        hints = typing.get_type_hints(type(value), include_extras=True)
    except Exception:  # any code may run in an annotation
        return True
    return all(
        conforms(getattr(value, field.name), hints.get(field.name, Any)) or getattr(value, field.name) == field.default
        for field in dataclasses.fields(value)
    )


def _is_customized(metadata: Any) -> bool:
    """Whether functions of the user's stand in an Annotated: what they make may be of any type."""
    return any(hasattr(each, "func") or hasattr(each, "__get_pydantic_core_schema__") for each in metadata)
