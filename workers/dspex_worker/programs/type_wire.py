"""Type annotations as text, read by a whitelist: nothing is imported, evaluated or looked up in a caller's frame.

DSPy's own string parser imports any unknown name (`q -> a: this` runs the module `this`), so no annotation text
reaches it. Pure; what a name may mean is fixed here, plus the `types` that a signature's spec brings along.
"""

from __future__ import annotations

import ast
import datetime
import decimal
import typing
import uuid
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import dspy
from dspy.experimental import Citations, Document
from pydantic import Field

from .dspy_errors import invalid_input

_BUILTINS: dict[str, Any] = {
    cls.__name__: cls for cls in (str, int, float, bool, list, tuple, dict, set, frozenset, bytes, bytearray, complex)
}
_TYPING: dict[str, Any] = {
    name: getattr(typing, name)
    for name in (
        *("Any", "Literal", "Optional", "Union", "List", "Dict", "Tuple", "Set", "FrozenSet", "Sequence"),
        *(
            "MutableSequence",
            "Iterable",
            "Collection",
            "Mapping",
            "MutableMapping",
            "AbstractSet",
            "Annotated",
            "Type",
        ),
    )
}
_DOTTED: dict[str, Any] = {
    "datetime.datetime": datetime.datetime,
    "datetime.date": datetime.date,
    "datetime.time": datetime.time,
    "datetime.timedelta": datetime.timedelta,
    "decimal.Decimal": decimal.Decimal,
    "uuid.UUID": uuid.UUID,
}
_DSPY: dict[str, Any] = {
    cls.__name__: cls
    for cls in (
        *(dspy.Image, dspy.Audio, dspy.File, dspy.History, dspy.Tool, dspy.ToolCalls, dspy.ToolCallResults),
        *(dspy.Code, dspy.Reasoning, Citations, Document),
    )
}
_CONSTRAINTS = frozenset(
    {"gt", "ge", "lt", "le", "min_length", "max_length", "multiple_of", "allow_inf_nan", "description"}
)
NAMES: dict[str, Any] = {
    **_BUILTINS,
    **_TYPING,
    **{f"typing.{name}": value for name, value in _TYPING.items()},
    **_DOTTED,
    **{f"dspy.{name}": value for name, value in _DSPY.items()},
    **{f"dspy.experimental.{name}": value for name, value in _DSPY.items()},
    "None": type(None),
    "NoneType": type(None),
}
"""Every name that an annotation may use without the spec's own types."""

_SPELLED = {value: name for name, value in [*_DOTTED.items(), *((f"dspy.{name}", cls) for name, cls in _DSPY.items())]}


def parse(text: str, types: Mapping[str, Any], field: str | None = None) -> Any:
    """The type that `text` describes, where a bare name is one of `NAMES` or `types`.

    Raises:
        Failure: InvalidInput, for anything else.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
        parsed = _type(tree.body, types)
    except (_Unreadable, SyntaxError, ValueError, TypeError, RecursionError) as error:
        reason = str(error) if isinstance(error, _Unreadable) else "it is not a type annotation"
        raise invalid_input(
            f"The annotation {text[:80]!r} of field {field!r} cannot be used: {reason}.", field
        ) from None
    return parsed


def spell(annotation: Any, types: Mapping[Any, str]) -> str:
    """The text that `parse` reads as `annotation`; `types` names the classes that the spec brings along.

    Raises:
        TypeError: `annotation` uses something that cannot be written (a TypeVar, a callable).
    """
    if annotation is None or annotation is type(None):
        return "None"
    if annotation is Any:
        return "Any"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return _spell_annotated(annotation, types)
    if origin is None:
        return _spell_name(annotation, types)
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if origin in (Union, UnionType):
        return _spell_union(arguments, types)
    inner = ", ".join("..." if argument is ... else spell(argument, types) for argument in arguments)
    alias = getattr(annotation, "_name", None)  # typing.List keeps its own name in prompts
    name = alias if alias in _TYPING else _spell_name(origin, types)
    return f"{name}[{inner or '()'}]"


class _Unreadable(Exception):
    """Why an annotation is refused."""


def _type(node: ast.expr, types: Mapping[str, Any]) -> Any:
    match node:
        case ast.Name(id=name):
            return _named(name, types)
        case ast.Attribute():
            return _named(ast.unparse(node), types)
        case ast.Constant(value=None):
            return type(None)  # dict[str, None] has another name in prompts than dict[str, NoneType]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return Union[_type(left, types), _type(right, types)]  # noqa: UP007 - made from text
        case ast.Subscript(value=base, slice=inner):
            return _subscripted(_type(base, types), inner, types)
    raise _Unreadable(f"{ast.unparse(node)!r} is not a name, a union or a subscript")


def _named(name: str, types: Mapping[str, Any]) -> Any:
    if name in types:
        return types[name]
    if name in NAMES:
        return NAMES[name]
    raise _Unreadable(f"{name!r} is not a known type, nor one of the signature's own")


def _subscripted(base: Any, inner: ast.expr, types: Mapping[str, Any]) -> Any:
    items = inner.elts if isinstance(inner, ast.Tuple) else [inner]
    if base is Literal:
        return Literal[tuple(ast.literal_eval(item) for item in items)]
    if base is typing.Annotated:
        return typing.Annotated[(_type(items[0], types), *(_metadata(item) for item in items[1:]))]
    if base is dspy.Code and len(items) == 1:
        return dspy.Code[ast.literal_eval(items[0])]
    arguments = tuple(_argument(item, types) for item in items)
    if base is Union:
        return Union[arguments]  # noqa: UP007 - from a value
    if base is typing.Optional:
        if len(arguments) != 1:
            raise _Unreadable("Optional takes exactly one type")
        return typing.Optional[arguments[0]]  # noqa: UP045 - built from a value
    # `list` for typing.List: prompts show them alike, and typing's cache takes Literal[a, b] for Literal[b, a].
    base = get_origin(base) or base
    return base[arguments if len(arguments) != 1 else arguments[0]]


def _argument(node: ast.expr, types: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant) and node.value is ...:
        return ...
    return _type(node, types)


def _metadata(node: ast.expr) -> Any:
    if not isinstance(node, ast.Call):
        return ast.literal_eval(node)
    options = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
    if ast.unparse(node.func) != "Field" or node.args or not options.keys() <= _CONSTRAINTS:
        raise _Unreadable(f"{ast.unparse(node)!r} is not a Field of constraints")
    return Field(**options)


def _spell_name(cls: Any, types: Mapping[Any, str]) -> str:
    if cls in types:
        return types[cls]
    if cls in _SPELLED:
        return _SPELLED[cls]
    if isinstance(cls, type) and issubclass(cls, dspy.Code):
        language: str = getattr(cls, "language", "")
        return f"dspy.Code[{language!r}]"
    name = getattr(cls, "__name__", None) or getattr(cls, "_name", None)
    if name in _BUILTINS and cls is _BUILTINS[name]:
        return str(name)
    if name in _TYPING and (cls is _TYPING[name] or cls is get_origin(_TYPING[name])):
        return str(name)
    raise TypeError(f"{cls!r} cannot be written as an annotation")


def _spell_union(arguments: tuple[Any, ...], types: Mapping[Any, str]) -> str:
    return f"Union[{', '.join(spell(argument, types) for argument in arguments)}]"


def _spell_annotated(annotation: Any, types: Mapping[Any, str]) -> str:
    metadata = []
    for item in annotation.__metadata__:
        given = dict(getattr(item, "_attributes_set", None) or {})
        for constraint in getattr(item, "metadata", ()):
            given |= {key: getattr(constraint, key) for key in _CONSTRAINTS if hasattr(constraint, key)}
        if not given or not given.keys() <= _CONSTRAINTS:
            raise TypeError(f"the metadata {item!r} cannot be written as an annotation")
        metadata.append(f"Field({', '.join(f'{key}={value!r}' for key, value in given.items())})")
    return f"Annotated[{', '.join([spell(annotation.__origin__, types), *metadata])}]"
