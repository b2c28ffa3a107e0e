"""The user's modules that may be named in a call: fixed when the pool starts, imported before (RULES X1).

`module:QualName` names an object; a module outside the pool's `imports`, a name with an underscore, or a path through
another module is refused. Read only after setup, by any thread.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from dspex_worker.programs.errors import unknown_name


@dataclass(frozen=True)
class Imports:
    """The modules of one pool's `imports` setting."""

    modules: frozenset[str] = frozenset()

    @classmethod
    def of(cls, names: Iterable[str] | None) -> Imports:
        return cls(frozenset(names or ()))

    def resolve(self, path: str, what: str) -> Any:
        """The object that `module:QualName` names.

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

    def has(self, cls: type) -> bool:
        """Whether `resolve` would give back this very class by its own name."""
        found: Any = importlib.import_module(cls.__module__) if cls.__module__ in self.modules else None
        for part in cls.__qualname__.split(".") if found is not None else ():
            found = None if part.startswith("_") else getattr(found, part, None)
        return found is cls
