"""Recognize DSPy's own classes and values in a host that has imported DSPy, and give what stands for them here.

Nothing here imports DSPy: where it is not loaded, nothing can be one of its objects. Models of the user's that *hold*
an image keep DSPy's class in them; prompts come from its own serializer, which gives the same text.
"""

from __future__ import annotations

import functools
import operator
import sys
import types
import typing
from collections.abc import Callable, Mapping
from inspect import isclass
from typing import Any, Final, Literal, Union, get_args, get_origin

_TYPES: Final = ("Image", "Audio", "File", "Code", "Reasoning", "History", "Tool", "ToolCalls", "ToolCallResults")
_EXPERIMENTAL: Final = ("Citations", "Document")


def loaded_dspy() -> Any:
    """Return the module `dspy` if this process has imported it, whole; else None."""
    found = sys.modules.get("dspy")
    return found if found is not None and hasattr(found, "Signature") and hasattr(found, "Example") else None


def is_instance(value: Any, name: str) -> bool:
    """Whether the value is of `dspy.<name>` itself, or of a class below it."""
    dspy = loaded_dspy()
    kind = getattr(dspy, name, None) if dspy is not None else None
    return isclass(kind) and isinstance(value, kind)


def is_signature_class(value: Any) -> bool:
    """Whether this is a class derived from `dspy.Signature`."""
    dspy = loaded_dspy()
    return dspy is not None and isclass(value) and issubclass(value, dspy.Signature)


def dspy_type_name(kind: Any) -> str | None:
    """Return what signatures call a type of DSPy's, `dspy.Image`; a user's own subclass by its path; else None."""
    stands_for = getattr(kind, "dspy_name", None)
    if stands_for is not None:
        return str(stands_for)
    dspy = loaded_dspy()
    if dspy is None or not isclass(kind) or not issubclass(kind, (dspy.Type, dspy.History, dspy.ToolCallResults)):
        return None
    known = _known(dspy).get(kind)
    if known is not None:
        return f"dspy.{known}"
    path = f"{kind.__module__}.{kind.__qualname__}"
    return f"dspy.Code[{getattr(kind, 'language', '')!r}]" if _is_code(dspy, kind) else path


def annotation_here(annotation: Any) -> Any:
    """Return the annotation with the classes that stand for DSPy's own in their place, at any depth."""
    if loaded_dspy() is None:
        return annotation
    if isclass(annotation) and get_origin(annotation) is None:
        return stand_in(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is None or origin is Literal or not arguments:
        return annotation
    made = tuple(each if each is ... else _part_here(each) for each in arguments)
    if all(new is old or (isinstance(old, list) and new == old) for new, old in zip(made, arguments, strict=True)):
        return annotation
    if origin is Callable:  # typing's own form copies itself with flat arguments only
        form: Any = Callable
        return form[made]
    if origin is types.UnionType or origin is Union:
        return functools.reduce(operator.or_, made) if origin is types.UnionType else Union[made]  # noqa: UP007
    if origin is typing.Annotated:
        return typing.Annotated[(made[0], *annotation.__metadata__)]
    copied = getattr(annotation, "copy_with", None)  # of typing's own forms, such as List[int]
    return origin[made] if copied is None else copied(made)


def stand_in(kind: Any) -> Any:
    """Return the class that stands for one of DSPy's own types; any other class as it is."""
    dspy = loaded_dspy()
    if dspy is None:
        return kind
    name = _known(dspy).get(kind)
    if name is not None or _is_code(dspy, kind):
        from . import content

        return content.by_name(name) if name is not None else content.code_of(kind.language)
    return kind


def value_here(value: Any) -> Any:
    """Return the value with those of DSPy's own types replaced by their stand-ins, in lists and mappings too."""
    return value if loaded_dspy() is None else _value(value)


def fields_of(record: Any) -> Mapping[str, Any] | None:
    """Return the fields of a `dspy.Example` or `dspy.Prediction`; None for anything else."""
    return dict(record.items()) if is_instance(record, "Example") else None


def input_names(record: Any) -> frozenset[str] | None:
    """Return which fields of a `dspy.Example` are inputs, if it says so."""
    names = getattr(record, "_input_keys", None) if is_instance(record, "Example") else None
    return None if names is None else frozenset(names)


def _part_here(part: Any) -> Any:
    return [annotation_here(each) for each in part] if isinstance(part, list) else annotation_here(part)


@functools.lru_cache(maxsize=1)
def _known(dspy: Any) -> dict[Any, str]:
    named = {getattr(dspy, name): name for name in _TYPES if hasattr(dspy, name)}
    experimental = getattr(dspy, "experimental", None)
    return named | {getattr(experimental, name): name for name in _EXPERIMENTAL if hasattr(experimental, name)}


def _is_code(dspy: Any, kind: Any) -> bool:
    is_derived = isclass(kind) and kind is not dspy.Code and issubclass(kind, dspy.Code)
    return is_derived and kind.__name__.startswith("Code_") and isinstance(getattr(kind, "language", None), str)


def _value(value: Any) -> Any:
    kind = type(value)
    if kind is list or kind is tuple:
        made = [_value(item) for item in value]
        return value if all(new is old for new, old in zip(made, value, strict=True)) else kind(made)
    if kind is dict:
        mapped = {key: _value(item) for key, item in value.items()}
        return value if all(mapped[key] is item for key, item in value.items()) else mapped
    found = stand_in(kind)
    return value if found is kind or found.__name__ in _EXPERIMENTAL else _converted(value, found)


def _converted(value: Any, kind: Any) -> Any:
    """Return the value under the class that stands for its own; it was checked when it was made."""
    match kind.__name__:
        case "Tool":
            return kind(value.func, name=value.name, desc=value.desc, args=value.args, arg_types=value.arg_types)
        case "ToolCalls":
            calls = [kind.ToolCall(id=each.id, name=each.name, args=each.args) for each in value.tool_calls]
            return kind(tool_calls=calls, tool_call_results=_value(value.tool_call_results))
        case "ToolCallResults":
            return kind(tool_call_results=[_value(dict(each)) for each in value.tool_call_results])
        case "History":
            return kind(messages=[_value(turn) for turn in value.messages])
        case _:
            pass
    return kind.model_construct(**{name: getattr(value, name) for name in type(value).model_fields})
