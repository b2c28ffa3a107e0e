"""Types as text: reading the annotations of string signatures, and writing any annotation back.

Reading never imports or evaluates anything: names come from a fixed table, from DSPy's own types (`dspy.Image`) or
from the caller's `custom_types`; DSPy itself imports a module for any name it does not know, which makes a
signature string a way to run code. Writing gives the canonical text that the workers read and that names a type on
the wire.
"""

from __future__ import annotations

import ast
import datetime
import decimal
import enum
import functools
import inspect
import re
import sys
import types
import typing
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, Union, get_args, get_origin

from ..errors import SignatureError, UnknownName
from .field import CONSTRAINT_WORDS

_PLAIN: Final = (int, str, float, bool, list, tuple, dict, set, frozenset, complex, bytes)
_TYPING: Final = (
    "Any", "Annotated", "Dict", "FrozenSet", "Iterable", "List", "Literal", "Mapping", "MutableMapping", "Optional",
    "Sequence", "Set", "Tuple", "Type", "Union",
)  # fmt: skip
_ABSTRACT: Final = ("Iterable", "Mapping", "MutableMapping", "Sequence")  # `Sequence[int]` keeps the class behind it
_NEED_ARGUMENTS: Final = frozenset(_TYPING) - {"Any"}
_NAMES: Final[Mapping[str, Any]] = {
    **{plain.__name__: plain for plain in _PLAIN},
    **{name: getattr(typing, name) for name in _TYPING},
    **{f"typing.{name}": getattr(typing, name) for name in _TYPING},
    "NoneType": type(None),
    "datetime.datetime": datetime.datetime,
    "datetime.date": datetime.date,
    "datetime.time": datetime.time,
    "datetime.timedelta": datetime.timedelta,
    "decimal.Decimal": decimal.Decimal,
    "uuid.UUID": uuid.UUID,
}
_BUILTIN_OF: Final[Mapping[Any, Any]] = {
    getattr(typing, name): builtin
    for name, builtin in {
        "Dict": dict,
        "FrozenSet": frozenset,
        "List": list,
        "Set": set,
        "Tuple": tuple,
        "Type": type,
    }.items()
}
_TEXT_OF: Final[Mapping[Any, str]] = (
    {named: name for name, named in _NAMES.items() if not name.startswith("typing.")}
    | {type(None): "None"}
    | {getattr(typing, name).__origin__: name for name in _ABSTRACT}
)
_LINE_END: Final = re.compile(r"\\?[\r\n]")
_NATIVE_TYPES: Final = (
    "Image", "Audio", "File", "Code", "Reasoning", "History", "Tool", "ToolCalls", "ToolCallResults",
)  # fmt: skip
_WORKER_TYPES: Final = ("Citations", "Document")


def read_annotation(text: str, custom_types: Mapping[str, Any] | None = None) -> Any:
    """The type that `text` names, e.g. `list[Literal['a', 'b']] | None`.

    Raises: SignatureError with the offset in `text`; UnknownName with the near names for a name that is not known.
    """
    return _read(text, custom_types) if custom_types else _read_known(text)


@functools.lru_cache(maxsize=4096)
def _read_known(text: str) -> Any:
    return _read(text, {})


def _read(text: str, custom_types: Mapping[str, Any]) -> Any:
    simple = custom_types.get(text) or _NAMES.get(text)
    if simple is not None and text not in _NEED_ARGUMENTS:
        return simple
    try:
        # A line may end anywhere in a signature's string, as between the brackets of a call.
        tree = ast.parse(_LINE_END.sub(lambda end: " " * len(end.group()), text).strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        offset = (getattr(error, "offset", None) or 1) - 1
        raise SignatureError(f"This is not a type: {_reason(error)}.", text=text, position=offset) from None
    reader = _AnnotationReader(text, custom_types)
    try:
        return reader.top(tree.body)
    except RecursionError:
        raise SignatureError("This type is nested too deeply.", text=text, position=0) from None


def _reason(error: BaseException) -> str:
    return getattr(error, "msg", None) or "it is nested too deeply"


def without_metadata(annotation: Any) -> Any:
    """A field's own type: what stands beside it in an outermost Annotated has no effect there, in DSPy as here."""
    while get_origin(annotation) is typing.Annotated:
        annotation = get_args(annotation)[0]
    return annotation


class _AnnotationReader:
    """Turns the syntax tree of one annotation into the type; knows the text only to point at mistakes."""

    def __init__(self, text: str, custom_types: Mapping[str, Any]) -> None:
        self.text = text
        self.custom_types = custom_types

    def top(self, node: ast.expr) -> Any:
        found = self.type(node)
        if found is type(None) and isinstance(node, ast.Constant):
            raise self.error("None alone is not a type (DSPy would silently read it as str)", node)
        return without_metadata(found)

    def type(self, node: ast.expr) -> Any:
        match node:
            case ast.Name() | ast.Attribute():
                return self.named(node)
            case ast.Constant(value=None):
                return type(None)
            case ast.Subscript():
                return self.subscript(node)
            case ast.BinOp(op=ast.BitOr()):
                return Union[self.type(node.left), self.type(node.right)]  # noqa: UP007 - also for string-less generics
        raise self.error(f"{ast.unparse(node)!r} is not a type that a string signature can name", node)

    def named(self, node: ast.expr) -> Any:
        name = self.dotted(node)
        found = self.custom_types.get(name, _NAMES.get(name))
        if found is None:
            found = _dspy_type(name)
        if found is None:
            raise self.unknown(name, node)
        if found is _NAMES.get(name) and name.removeprefix("typing.") in _NEED_ARGUMENTS:
            raise self.error(f"{name} needs its arguments in square brackets", node)
        return found

    def dotted(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, ast.Attribute):
            return f"{self.dotted(node.value)}.{node.attr}"
        raise self.error(f"{ast.unparse(node)!r} is not a name", node)

    def subscript(self, node: ast.Subscript) -> Any:
        name = self.dotted(node.value)
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        base = self.custom_types.get(name, _NAMES.get(name))
        if base is None and name in ("dspy.Code", "Code"):
            return self.code(node, inner)
        if base is Literal:
            return Literal[tuple(self.literal(item) for item in inner)]
        if base is typing.Annotated:
            return self.annotated(node, inner)
        if base is None:
            raise self.unknown(name, node)
        if base is typing.Optional and len(inner) != 1:
            raise self.error(f"Optional takes exactly one type, not {len(inner)}", node)
        # `list` for `List`: the same in every prompt, but typing's cache takes Union[a, b] for an older Union[b, a].
        base = _BUILTIN_OF.get(base, base)
        return self.applied(node, base, tuple(self.argument(base, item) for item in inner))

    def applied(self, node: ast.expr, base: Any, arguments: tuple[Any, ...]) -> Any:
        if base is dict and len(arguments) != 2:
            raise self.error("dict takes two types in square brackets", node)
        if ... in arguments and (len(arguments) != 2 or arguments[0] is ...):
            raise self.error("tuple takes '...' after one type only, as in tuple[int, ...]", node)
        try:
            return base[arguments if len(arguments) != 1 else arguments[0]]
        except TypeError as error:
            raise self.error(f"{ast.unparse(node)} is not a type: {error}", node) from None

    def argument(self, base: Any, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and node.value is ... and base is tuple:
            return ...
        return self.type(node)

    def literal(self, node: ast.expr) -> Any:
        sign = -1 if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) else 1
        inner = node.operand if isinstance(node, ast.UnaryOp) and sign == -1 else node
        if isinstance(inner, ast.Constant) and (inner.value is None or isinstance(inner.value, str | int | bytes)):
            if sign == 1:
                return inner.value
            if type(inner.value) is int:
                return -inner.value
        raise self.error("Literal takes strings, integers, bytes, booleans and None", node)

    def annotated(self, node: ast.Subscript, inner: list[ast.expr]) -> Any:
        if len(inner) < 2:
            raise self.error("Annotated takes a type and at least one piece of metadata", node)
        metadata = tuple(self.metadata(item) for item in inner[1:])
        return typing.Annotated[(self.type(inner[0]), *metadata)]

    def metadata(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Field"):
            raise self.error("Annotated takes constants and Field(...) as metadata", node)
        if node.args or any(not isinstance(keyword.value, ast.Constant) for keyword in node.keywords):
            raise self.error("Field takes named constants only", node)
        unknown = [keyword.arg for keyword in node.keywords if keyword.arg not in (*CONSTRAINT_WORDS, "description")]
        if unknown:
            raise self.error(f"Field does not take {unknown[0]} here", node)
        from pydantic import Field as PydanticField

        options: dict[str, Any] = {
            str(word.arg): word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)
        }
        return PydanticField(**options)

    def code(self, node: ast.Subscript, inner: list[ast.expr]) -> Any:
        if len(inner) != 1 or not isinstance(inner[0], ast.Constant) or not isinstance(inner[0].value, str):
            raise self.error("Code takes one language, as in dspy.Code['java']", node)
        from ..types.content import code_of

        return code_of(inner[0].value)

    def unknown(self, name: str, node: ast.expr) -> SignatureError:
        known = [*_NAMES, *self.custom_types, *(f"dspy.{each}" for each in (*_NATIVE_TYPES, *_WORKER_TYPES))]
        hint = UnknownName("type", name, [each for each in known if not each.startswith("typing.")])
        return self.error(f"{hint} Names of your own are given by custom_types={{...}}", node)

    def error(self, message: str, node: ast.expr) -> SignatureError:
        lead = len(self.text) - len(self.text.lstrip())
        return SignatureError(f"{message}.", text=self.text, position=lead + node.col_offset)


def _dspy_type(name: str) -> Any:
    base, _, last = name.rpartition(".")
    if base not in ("dspy", "dspy.experimental") or last not in (*_NATIVE_TYPES, *_WORKER_TYPES):
        return None
    from ..types import content as dspy_types

    return dspy_types.by_name(last)


# --- writing ------------------------------------------------------------------------------------------------------


def annotation_text(annotation: Any) -> str:
    """The canonical source text of a type: `Union[str, None]` for every spelling of it, `Literal['a', 'b']`.

    Raises: SignatureError for a type that text cannot name (a callable's signature, a type variable).
    """
    known = _TEXT_OF.get(annotation) if getattr(annotation, "__hash__", None) else None
    if known is not None:
        return known
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is None:
        return _class_text(annotation)
    if origin is Literal:
        return f"Literal[{', '.join(_literal_text(each) for each in arguments)}]"
    if origin is typing.Annotated:
        return f"Annotated[{annotation_text(arguments[0])}, {', '.join(map(_metadata_text, annotation.__metadata__))}]"
    if origin is tuple and not arguments:
        return "tuple[()]"
    return f"{_origin_text(annotation, origin)}[{', '.join(map(_argument_text, arguments))}]"


def _argument_text(argument: Any) -> str:
    return "..." if argument is ... else annotation_text(argument)


def _origin_text(annotation: Any, origin: Any) -> str:
    if origin is Union or origin is types.UnionType:
        return "Union"
    alias = getattr(annotation, "_name", None)  # typing.List keeps its own name in prompts
    return alias if alias in _TYPING else _class_text(origin)


def _class_text(annotation: Any) -> str:
    if annotation in _TEXT_OF:
        return _TEXT_OF[annotation]
    if not inspect.isclass(annotation):
        raise SignatureError(f"The type {annotation!r} cannot be written as text, so no worker could read it.")
    if is_dspy_type(annotation):
        return str(getattr(annotation, "dspy_name"))  # noqa: B009 - a class that only pydantic's import brings
    return annotation.__name__


def _literal_text(value: Any) -> str:
    if isinstance(value, enum.Enum) or not (value is None or isinstance(value, str | int | bytes)):
        raise SignatureError(f"Literal[{value!r}] cannot be written as text; use strings, integers, bytes or None.")
    return repr(value)


def _metadata_text(value: Any) -> str:
    if value is None or isinstance(value, str | int | float):
        return repr(value)
    bounds = getattr(value, "metadata", None)  # pydantic keeps what Field(gt=3) was given as a list of bounds
    if bounds is None:
        raise SignatureError(f"The metadata {value!r} of an Annotated type cannot be written as text.")
    given = dict(_bound(each, value) for each in bounds)
    if value.description is not None:
        given["description"] = value.description
    return f"Field({', '.join(f'{key}={each!r}' for key, each in given.items())})"


def _bound(bound: Any, whole: Any) -> tuple[str, Any]:
    for key in CONSTRAINT_WORDS:
        if (value := getattr(bound, key, None)) is not None:
            return key, value
    raise SignatureError(f"The metadata {whole!r} of an Annotated type cannot be written as text.")


def is_dspy_type(annotation: Any) -> bool:
    """Whether this class stands for one of DSPy's own types (`dspex.types.content`)."""
    loaded = sys.modules.get("dspex.types.custom_type")  # never import pydantic only to say no
    return loaded is not None and inspect.isclass(annotation) and hasattr(annotation, "dspy_name")


def classes_in(annotation: Any) -> Iterator[type]:
    """Every class of the user's, or of DSPy's, that the annotation names, in order, with repetitions."""
    if inspect.isclass(annotation) and get_origin(annotation) is None:
        if annotation not in _TEXT_OF:
            yield annotation
        return
    origin = get_origin(annotation)
    if origin is Literal or origin is None:
        return
    if inspect.isclass(origin) and origin not in _TEXT_OF and origin is not types.UnionType:
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
