"""Keep prompts and answers out of what DSPy logs and prints: its lines quote whole examples, and errors that do.

What is left of a line is what DSPy's source says of it, with the names of the values in the place of the values, and
the class of the error that is being handled. What users print and log themselves stays as it is.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import importlib
import logging
import os
import sys
from pathlib import Path
from typing import Any

import dspy

_FOLDER = f"{Path(dspy.__file__).parent}{os.sep}"
_SAYING = frozenset(
    {"debug", "info", "warning", "warn", "error", "exception", "critical", "fatal", "log", "print", "warn_once"}
)
_PRINTING = ("predict.best_of_n", "predict.refine", "predict.avatar.avatar", "teleprompt.avatar_optimizer")
_NAMES = frozenset({"extra_fields", "present", "missing", "field_name", "list(signature.input_fields.keys())"})
WHOLE = "whole_text"  # of a record: what DSPy said, for the readers of this process alone
UNKNOWN = "a message of DSPy's, which may quote prompts and is left out"


def install() -> None:
    """Let DSPy's records and prints say no values, in this process from now on."""
    logging.setLogRecordFactory(_quiet(logging.getLogRecordFactory()))
    for name in _PRINTING:
        try:
            module: Any = importlib.import_module(f"dspy.{name}")
        except ImportError:  # of another version of DSPy
            continue
        module.print = _print


def _quiet(make: Any) -> Any:
    @functools.wraps(make)
    def record(name: str, level: int, path: str, line: int, text: Any, args: Any, exc_info: Any, *more: Any) -> Any:
        if not ((name == "dspy" or name.startswith("dspy.")) and path.startswith(_FOLDER)):
            return make(name, level, path, line, text, args, exc_info, *more)
        quiet = make(name, level, path, line, _without_values(path, line, exc_info, args), (), None, *more)
        quiet.__dict__[WHOLE] = text
        return quiet

    return record


def _print(*values: Any, **how: Any) -> None:
    caller = sys._getframe(1)
    builtins.print(_without_values(caller.f_code.co_filename, caller.f_lineno, None, ()), **how)


def _without_values(path: str, line: int, exc_info: Any, values: Any) -> str:
    given = exc_info if isinstance(exc_info, tuple) and exc_info and exc_info[0] else sys.exc_info()
    kind = f" ({given[0].__name__})" if given[0] is not None else ""
    text, sources = _wording(path).get(line, (UNKNOWN, ()))
    if sources and isinstance(values, tuple) and len(values) == len(sources):
        shown = [value if source in _NAMES else f"{{{source}}}" for source, value in zip(sources, values, strict=True)]
        with contextlib.suppress(TypeError, ValueError):  # a %d
            text %= tuple(shown)
    return f"{text}{kind}"


@functools.cache
def _wording(path: str) -> dict[int, tuple[str, tuple[str, ...]]]:
    """Return what DSPy's source says on each line of a call that logs or prints, and of what it makes the arguments."""
    try:
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return {}
    found: dict[int, tuple[str, tuple[str, ...]]] = {}
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and call.args and _name_of(call.func) in _SAYING:
            first, *others = call.args[1:] if _name_of(call.func) == "log" and len(call.args) > 1 else call.args
            said = _text_of(first), tuple(map(ast.unparse, others))
            found |= dict.fromkeys(range(call.lineno, (call.end_lineno or call.lineno) + 1), said)
    return found


def _name_of(called: ast.expr) -> str:
    return called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")


def _text_of(said: ast.expr) -> str:
    match said:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text_of(part) for part in parts)
        case ast.FormattedValue(value=value):
            return f"{{{ast.unparse(value)}}}"
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text_of(left) + _text_of(right)
        case _:
            return UNKNOWN
