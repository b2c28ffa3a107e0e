"""Read a type from text, by a table of names: nothing is imported, evaluated or looked up in a caller's frame.

DSPy's own string parser imports a module for any name it does not know (`q -> a: this` runs the module `this`), so no
annotation text reaches it.
"""

from __future__ import annotations

import ast
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Union, cast, get_origin

from .annotation_facts import without_metadata
from .type_names import CONSTRAINT_WORDS, DSPY_TYPES, GENERICS, NAMES

_LINE_END: Final = re.compile(r"\\?[\r\n]")
_SPECIAL: Final = (Union, typing.Optional)  # every other generic stands for the class behind it


class Unreadable(ValueError):
    """A text that is no type: `position` is the offset in it, `name` the unknown name, if that is it."""

    def __init__(self, message: str, position: int, *, name: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.position = position
        self.name = name


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The meaning of type names on one side, beside those of the table."""

    dspy_type: Callable[[str], Any]  # the class that stands for one of DSPy's types, by its last name
    code_of: Callable[[str], Any]  # DSPy's Code for a language
    types: Mapping[str, Any] = field(default_factory=dict)

    def find(self, name: str) -> Any:
        """Return the type of that name; None if there is none."""
        return self.types.get(name, NAMES.get(name))

    def known(self) -> list[str]:
        """Return the names to choose from."""
        names = (*NAMES, *self.types, *(f"dspy.{name}" for name in DSPY_TYPES))
        return [name for name in names if not name.startswith("typing.")]


def read_annotation(text: str, vocabulary: Vocabulary) -> Any:
    """Return the type that a user's text names, e.g. `list[Literal['a', 'b']] | None`.

    Raises:
        Unreadable: it is no type, or one that needs arguments has none.
    """
    return _read(text, vocabulary, is_canonical=False)


def read_canonical(text: str, vocabulary: Vocabulary) -> Any:
    """Return the type whose text `annotation_text` made; `None` and bare generics are types there.

    Raises:
        Unreadable: it is no such text.
    """
    return type(None) if text == "None" else _read(text, vocabulary, is_canonical=True)


def _read(text: str, vocabulary: Vocabulary, *, is_canonical: bool) -> Any:
    simple = vocabulary.find(text)
    if simple is not None and (is_canonical or text not in GENERICS):
        return simple
    try:
        # A line may end anywhere in a signature's string, as between the brackets of a call.
        tree = ast.parse(_LINE_END.sub(lambda end: " " * len(end.group()), text).strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        offset = (getattr(error, "offset", None) or 1) - 1
        reason = getattr(error, "msg", None) or "it is nested too deeply"
        raise Unreadable(f"This is not a type: {reason}", offset) from None
    try:
        return _AnnotationReader(text, vocabulary, is_canonical).top(tree.body)
    except RecursionError:
        raise Unreadable("This type is nested too deeply", 0) from None


class _AnnotationReader:
    """Turns the syntax tree of one annotation into the type; uses the text only to point at mistakes."""

    def __init__(self, text: str, vocabulary: Vocabulary, is_canonical: bool) -> None:
        self.lead = len(text) - len(text.lstrip())
        self.vocabulary = vocabulary
        self.is_canonical = is_canonical

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
                return type(None)  # dict[str, None] has another name in prompts than dict[str, NoneType]
            case ast.Subscript():
                return self.subscript(node)
            case ast.BinOp(op=ast.BitOr()):
                return Union[self.type(node.left), self.type(node.right)]  # noqa: UP007 - also for string-less generics
            case _:
                raise self.error(f"{ast.unparse(node)!r} is not a type that a string signature can name", node)

    def named(self, node: ast.expr) -> Any:
        name = self.dotted(node)
        found = self.vocabulary.find(name)
        if found is None:
            found = self.dspy_type(name)
        if found is None:
            raise self.unknown(name, node)
        if found is NAMES.get(name) and name.removeprefix("typing.") in GENERICS and not self.is_canonical:
            raise self.error(f"{name} needs its arguments in square brackets", node)
        return found

    def dspy_type(self, name: str) -> Any:
        base, _, last = name.rpartition(".")
        is_one = base in ("dspy", "dspy.experimental") and last in DSPY_TYPES
        return self.vocabulary.dspy_type(last) if is_one else None

    def dotted(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, ast.Attribute):
            return f"{self.dotted(node.value)}.{node.attr}"
        raise self.error(f"{ast.unparse(node)!r} is not a name", node)

    def subscript(self, node: ast.Subscript) -> Any:
        name = self.dotted(node.value)
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        base = self.vocabulary.find(name)
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
        if base is NAMES.get(name) and base not in _SPECIAL:
            base = get_origin(base) or base
        return self.applied(node, base, tuple(self.argument(base, item) for item in inner))

    def applied(self, node: ast.expr, base: Any, arguments: tuple[Any, ...]) -> Any:
        if base is dict and len(arguments) != 2 and not self.is_canonical:
            raise self.error("dict takes two types in square brackets", node)
        if ... in arguments and (len(arguments) != 2 or arguments[0] is ...):
            raise self.error("tuple takes '...' after one type only, as in tuple[int, ...]", node)
        try:
            return cast("Any", base)[arguments if len(arguments) != 1 else arguments[0]]
        except TypeError as error:
            raise self.error(f"{ast.unparse(node)} is not a type: {error}", node) from None

    def argument(self, base: Any, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and node.value is ... and base is tuple:
            return ...
        return self.type(node)

    def literal(self, node: ast.expr) -> Any:
        is_constant, value = _constant(node)
        if is_constant and (value is None or isinstance(value, str | int | bytes)):
            return value
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
        options = {str(word.arg): _constant(word.value) for word in node.keywords}
        if node.args or not all(is_constant for is_constant, _ in options.values()):
            raise self.error("Field takes named constants only", node)
        unknown = [name for name in options if name not in (*CONSTRAINT_WORDS, "description")]
        if unknown:
            raise self.error(f"Field does not take {unknown[0]} here", node)
        from pydantic import Field

        return Field(**{name: value for name, (_, value) in options.items()})

    def code(self, node: ast.Subscript, inner: list[ast.expr]) -> Any:
        if len(inner) != 1 or not isinstance(inner[0], ast.Constant) or not isinstance(inner[0].value, str):
            raise self.error("Code takes one language, as in dspy.Code['java']", node)
        return self.vocabulary.code_of(inner[0].value)

    def unknown(self, name: str, node: ast.expr) -> Unreadable:
        return Unreadable(f"{name!r} is not a known type, nor one of the signature's own", self.at(node), name=name)

    def error(self, message: str, node: ast.expr) -> Unreadable:
        return Unreadable(message, self.at(node))

    def at(self, node: ast.expr) -> int:
        return self.lead + node.col_offset


def _constant(node: ast.expr) -> tuple[bool, Any]:
    """Return whether a node is a constant, perhaps a negative number, and which."""
    if isinstance(node, ast.Constant):
        return node.value is not ..., node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        value = node.operand.value
        return (True, -value) if type(value) in (int, float) else (False, None)  # type: ignore[operator]
    return False, None
