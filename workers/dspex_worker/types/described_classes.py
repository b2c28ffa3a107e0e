"""Decide whether a type's JSON schema says all of it, so that a worker may make an equal one from that alone.

A schema says nothing of validators, serializers, aliases, factories, excluded members or most settings of a model. So
only what is known to be wholly in it counts: plain members with bounds, enums, and models of such. Everything else
crosses as itself: by its import path, or by value.
"""

from __future__ import annotations

import datetime
import enum
import functools
import types
import typing
import uuid
from inspect import isclass
from typing import Any, Final, Literal, Union, get_args, get_origin

_LEAVES: Final = frozenset({
    str, int, float, bool, bytes, type(None), Any, list, dict, set,
    datetime.datetime, datetime.date, datetime.time, datetime.timedelta, uuid.UUID,
})  # fmt: skip
_GENERICS: Final = frozenset({list, dict, set, tuple})
_CONFIG: Final = frozenset({"extra", "title", "frozen", "from_attributes", "protected_namespaces"})
_MEMBER: Final = frozenset({"annotation", "default", "description", "title", "examples", "frozen", "repr"})
_ENUM_METHODS: Final = ("_missing_", "__get_pydantic_core_schema__", "__get_pydantic_json_schema__")


def is_described_class(kind: Any) -> bool:
    """Whether this class is an enum, or a model whose schema says all of it."""
    if not isclass(kind):
        return False
    if issubclass(kind, enum.Enum):
        return _is_plain_enum(kind)
    model: Any = kind
    return hasattr(kind, "model_json_schema") and _is_described_model(model)


@functools.lru_cache(maxsize=512)
def _is_described_model(kind: Any) -> bool:
    return _says_all(kind, set()) and _is_rebuilt(kind)


def _is_rebuilt(kind: Any) -> bool:
    """Whether a model made from the schema has the same schema again."""
    from .models_from_schema import Unbuildable, model_from_schema

    try:
        model_from_schema(kind.model_json_schema(), kind.__name__)
    except Unbuildable:
        return False
    return True


def _says_all(kind: Any, seen: set[Any]) -> bool:
    if kind in seen:
        return True
    seen.add(kind)
    return _has_plain_class(kind) and all(
        _is_plain_member(member) and _is_plain_type(member.annotation, seen) for member in kind.model_fields.values()
    )


def _has_plain_class(kind: Any) -> bool:
    """Whether the class adds nothing to its members: no validators, serializers, private members or hooks."""
    import pydantic

    own = kind.__pydantic_decorators__
    hooks = ("model_post_init", "__init__", "__new__", "__get_pydantic_core_schema__", "__get_pydantic_json_schema__")
    return (
        not issubclass(kind, pydantic.RootModel)
        and set(kind.model_config) <= _CONFIG
        and not any(getattr(own, kinds) for kinds in own.__slots__)
        and not kind.__private_attributes__
        and not kind.__pydantic_generic_metadata__["origin"]
        and all(_is_pydantics(kind, hook, pydantic.BaseModel) for hook in hooks)
    )


def _is_pydantics(kind: Any, name: str, base: Any) -> bool:
    return getattr(getattr(kind, name), "__func__", getattr(kind, name)) is getattr(
        getattr(base, name), "__func__", getattr(base, name)
    )


def _is_plain_member(member: Any) -> bool:
    """Whether a member has a default, words and bounds alone."""
    given = getattr(member, "_attributes_set", {})
    return all(key in _MEMBER or _is_bound(key) for key in given if key != "metadata") and _are_bounds(member.metadata)


def _is_plain_type(annotation: Any, seen: set[Any]) -> bool:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return _are_bounds(annotation.__metadata__) and _is_plain_type(arguments[0], seen)
    if origin is Literal:
        return all(type(each) in (str, int, bool) for each in arguments)
    if origin is Union or origin is types.UnionType or origin in _GENERICS:
        return all(each is ... or _is_plain_type(each, seen) for each in arguments)
    if annotation in _LEAVES:
        return True
    if not isclass(annotation):
        return False
    if issubclass(annotation, enum.Enum):
        return _is_plain_enum(annotation)
    return hasattr(annotation, "model_fields") and not _is_dspys(annotation) and _says_all(annotation, seen)


def _is_dspys(kind: Any) -> bool:
    """Whether this is one of DSPy's own types, or what stands for one in the host."""
    return hasattr(kind, "dspy_name") or kind.__module__.startswith("dspy.")


def _are_bounds(metadata: Any) -> bool:
    """Whether metadata are of `annotated_types`, or a pydantic Field of nothing else."""
    return all(
        (type(each).__module__ == "annotated_types" and type(each).__name__ in _BOUNDS)
        or (type(each).__name__ == "FieldInfo" and _is_plain_member(each))
        or (type(each).__name__ == "PydanticGeneralMetadata" and set(vars(each)) <= {"pattern"})
        for each in metadata
    )


def _is_bound(key: str) -> bool:
    return key in ("gt", "ge", "lt", "le", "min_length", "max_length", "multiple_of", "pattern")


_BOUNDS: Final = frozenset({"Gt", "Ge", "Lt", "Le", "MinLen", "MaxLen", "MultipleOf"})


def _is_plain_enum(kind: type[enum.Enum]) -> bool:
    plain = all(member.value is None or type(member.value) in (bool, int, float, str) for member in kind)
    return plain and not any(name in vars(kind) for name in _ENUM_METHODS)
