"""Resolve names in the user's modules for calls of clients: those that the pool named when it started (RULES X1).

`module:QualName` names an object; a module outside the pool's `imports`, a name with an underscore, or a path through
another module is refused. Read only after setup, by any thread.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ..dspy_errors import invalid_input, unknown_name
from .import_bindings import imported_from

_PASSED_ON_MOST = 20  # modules of the imports that import a name from each other


@dataclass(frozen=True)
class UserImports:
    """The modules of one pool's `imports` setting."""

    modules: frozenset[str] = frozenset()

    @classmethod
    def of(cls, names: Iterable[str] | None) -> UserImports:
        return cls(frozenset(names or ()))

    @property
    def is_open(self) -> bool:
        """Whether any module may be named, and code be sent by value: in calls of the host itself."""
        return False

    def at(self, version: str) -> UserImports:
        """Return the same for a module in this version of its files: of the `imports`, as the pool has it."""
        return self

    def resolve(self, path: str, what: str) -> Any:
        """Return the object that `module:QualName` names.

        Raises:
            Failure: UnknownName, when the module is not in `imports` or has no such public object.
        """
        module_name, _, qualified = path.partition(":")
        if module_name not in self.modules:
            raise unknown_name(what, path, (f"{name}:..." for name in self.modules), where="the pool's imports")
        found: Any = importlib.import_module(module_name)
        public = [name for name in vars(found) if not name.startswith("_")]
        for part in qualified.split("."):
            if not part.isidentifier() or part.startswith("_") or not hasattr(found, part):
                raise unknown_name(what, path, (f"{module_name}:{name}" for name in public), where="the pool's imports")
            found = getattr(found, part)
            if isinstance(found, ModuleType):
                # A module that the user's module imported is not the user's: `mine:os.system` ends here.
                raise unknown_name(what, path, (f"{module_name}:{name}" for name in public), where="the pool's imports")
        return found

    def sent(self, name: str, label: str) -> Any:
        """Return what the host sent by value; a client's call has none.

        Raises:
            Failure: InvalidInput.
        """
        raise invalid_input(f"{label} is named {name[:20]}..., but a client of the control socket sends no code.")

    def resolve_own(self, path: str, what: str) -> Any:
        """`resolve`, for what will be called or constructed: nothing that the module merely imported.

        Else `mine:Popen` would start processes because mine.py says `from subprocess import Popen`. What a module of
        the `imports` or one below it defines is its own, and so is what it made by calling something: an instance, a
        partial, a method of either.

        Raises:
            Failure: UnknownName, as `resolve`; InvalidInput, for what another module defines.
        """
        found = self.resolve(path, what)
        home = _home(found) or self._origin(path)
        if home is None or self._covers(home):
            return found
        raise invalid_input(
            f"The {what} {path!r} is defined in {home}, which is not in the pool's imports: add it there, or define "
            f"the {what} in a module of the imports."
        )

    def _covers(self, home: str) -> bool:
        return any(home == name or home.startswith(f"{name}.") for name in self.modules)

    def _origin(self, path: str) -> str | None:
        """Return the module outside the imports from which something nameless was imported; None if from none."""
        module_name, _, qualified = path.partition(":")
        name = qualified.partition(".")[0]
        for _ in range(_PASSED_ON_MOST):
            origin = imported_from(importlib.import_module(module_name), name)
            if origin is None:
                return None
            module_name, name = origin
            if not self._covers(module_name):
                return module_name
        return module_name

    def has(self, cls: type) -> bool:
        """Whether `resolve` would give back this very class by its own name."""
        found: Any = importlib.import_module(cls.__module__) if cls.__module__ in self.modules else None
        for part in cls.__qualname__.split(".") if found is not None else ():
            found = None if part.startswith("_") else getattr(found, part, None)
        return found is cls


def _home(found: Any) -> str | None:
    """Return the module that holds a class or a function under its own name; None for what is held so by none.

    An object that was made (a partial, an instance, what a factory gave) belongs to the module that made it.
    """
    owner = getattr(found, "__self__", None)
    if isinstance(owner, type):  # a class method
        return _home(owner)
    module, name = getattr(found, "__module__", None), getattr(found, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    there: Any = sys.modules.get(module)
    for part in name.split("."):
        there = getattr(there, part, None)
    return module if there is found else None
