"""Where DSPex and DSPy disagree about a signature string, by docs/internals/parity.md; written without DSPex.

DSPy drops what it cannot use and imports what it does not know; DSPex refuses both. `stricter` and `wider` say which
rule applies, so that a disagreement is expected for one reason and not excused for any.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
import typing
from collections import Counter

from tests.support.parity import shapes

RESERVED = ("fields", "input_fields", "output_fields", "instructions", "signature")
_BUILTIN = {"int", "str", "float", "bool", "list", "tuple", "dict", "set", "frozenset", "complex", "bytes"}
_TYPING = set(
    "Any Annotated Dict FrozenSet Iterable List Literal Mapping MutableMapping Optional Sequence Set Tuple Type Union"
    .split()
)  # fmt: skip
_OPTIONS = set("gt ge lt le min_length max_length multiple_of allow_inf_nan description".split())
_DOTTED = {"datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta", "decimal.Decimal", "uuid.UUID"}
_OF_DSPY = set(
    "Image Audio File Code Reasoning History Tool ToolCalls ToolCallResults Citations Document".split()
)  # fmt: skip


def stricter(text: str) -> str | None:
    """The rule by which DSPex refuses this string although DSPy may accept it; None when there is none."""
    parts = text.split("->")
    if len(parts) != 2:
        return None
    names: Counter[str] = Counter()
    for side in parts:
        try:
            body = ast.parse(f"def f({side}): pass").body
        except SyntaxError:
            return None
        if "#" in side and _has_comment(f"def f({side}): pass"):
            return "a comment is dropped"
        found = _of_side(body, names)
        if found:
            return found
    return None


def _has_comment(source: str) -> bool:
    return any(token.type == tokenize.COMMENT for token in tokenize.generate_tokens(io.StringIO(source).readline))


def wider(text: str) -> str | None:
    """The rule by which DSPex accepts this string although DSPy may refuse it; None when there is none."""
    if text.count("->") != 1 and re.search("""['"].*->.*['"]""", text):
        return "an arrow in a literal"
    if re.search(r"Literal\[.*-\s*\d", text, re.DOTALL):
        return "a negative number in a literal"
    return "NoneType beside custom types" if "NoneType" in text else None


def _of_side(body: list[ast.stmt], names: Counter[str]) -> str | None:
    function = body[0]
    if len(body) > 1 or not isinstance(function, ast.FunctionDef) or function.returns:
        return "code after the fields"
    given = function.args
    if len(function.body) != 1 or not isinstance(function.body[0], ast.Pass):
        return "code after the fields"
    if given.vararg or given.kwarg or given.kwonlyargs or given.posonlyargs or given.defaults:
        return "a default, *, / or ** is dropped"
    for each in given.args:
        names[each.arg] += 1
        if names[each.arg] > 1:
            return "a name twice"
        if each.annotation is not None and (found := _of_type(each.annotation, top=True)):
            return found
    return None


def _of_type(node: ast.expr, top: bool = False) -> str | None:
    if top and isinstance(node, ast.Constant) and node.value is None:
        return "None alone reads as str"
    if isinstance(node, ast.Name | ast.Attribute):
        name = ast.unparse(node)
        return None if _is_known(name) else f"{name} is imported or unknown"
    if isinstance(node, ast.Subscript):
        name = ast.unparse(node.value)
        if name.removeprefix("typing.") == "Literal":
            return _of_literal(node)
        if name.removeprefix("typing.") == "Annotated":
            return _of_annotated(node)
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        return _of_type(node.value) or next((found for each in inner if (found := _of_type(each))), None)
    if isinstance(node, ast.BinOp):
        return _of_type(node.left) or _of_type(node.right)
    if isinstance(node, ast.Constant) and node.value not in (None, ...):
        return "a constant is no type"
    return None if isinstance(node, ast.Constant | ast.Tuple) else "this syntax is no type"


def _of_literal(node: ast.Subscript) -> str | None:
    inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    for each in inner:
        if isinstance(each, ast.UnaryOp):
            each = each.operand
        if not isinstance(each, ast.Constant) or isinstance(each.value, float | complex | type(...)):
            return "a Literal holds more than constants"
    return None


def _of_annotated(node: ast.Subscript) -> str | None:
    inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    for each in inner[1:]:
        named = {word.arg for word in each.keywords} if isinstance(each, ast.Call) else set()
        if not isinstance(each, ast.Constant | ast.Call) or not named <= _OPTIONS:
            return "metadata that is no Field of constraints"
    return _of_type(inner[0])


def _is_known(name: str) -> bool:
    bare = name.removeprefix("typing.")
    if name in shapes.NAMES or name in _DOTTED or name in _BUILTIN or name == "NoneType":
        return True
    if name.startswith("dspy."):
        return name.rpartition(".")[2] in _OF_DSPY
    return bare in _TYPING and hasattr(typing, bare)
