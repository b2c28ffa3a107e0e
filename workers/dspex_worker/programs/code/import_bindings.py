"""Tell which names a user's module binds by importing them, and from where. Reads source; runs nothing.

A class or a function says itself where it is defined. What was made by calling something does not (an instance, a
partial, a closure, a bound method): whether a module made it or merely imported it stands in its import statements.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from types import ModuleType

_STAR = "*"
_OWN_SCOPE = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def imported_from(module: ModuleType, name: str) -> tuple[str, str] | None:
    """Return the module, and the name in it, from which a module's global comes; None when it makes it itself."""
    bound = vars(module).get(name)
    found = [origin for alias, origin in _imports(module) if alias == name]
    found += [(source, name) for alias, (source, _) in _imports(module) if alias == _STAR]
    for source, original in found:
        if vars(sys.modules.get(source, module)).get(original) is bound and source != module.__name__:
            return source, original
    return None


@functools.lru_cache(maxsize=256)
def _imports(module: ModuleType) -> tuple[tuple[str, tuple[str, str]], ...]:
    """Return what a module imports by `from`: each name with its origin; nothing where its source is not there."""
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError, SyntaxError, ValueError):
        return ()
    return tuple(
        (alias.asname or alias.name, (_source(node, module), alias.name))
        for node in _statements(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    )


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all that runs in the module's own scope: also below `if` and `try`, not in functions and classes."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, _OWN_SCOPE):
            yield from _statements(child)


def _source(node: ast.ImportFrom, module: ModuleType) -> str:
    name = "." * node.level + (node.module or "")
    if not node.level:
        return name
    try:
        return importlib.util.resolve_name(name, module.__package__ or "")
    except ImportError:
        return name
