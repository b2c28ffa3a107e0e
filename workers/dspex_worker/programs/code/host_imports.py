"""Resolve names for calls that the host itself makes: any module that it names, found where the host finds it.

The host may import what it likes, and a worker is the host's own process. What a client of the control socket names is
looked up in the pool's `imports` alone: see `UserImports`.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

from ..dspy_errors import unknown_name
from ..values.host_modules import imported
from .call_references import HostReferences
from .host_code import loaded
from .user_imports import UserImports

KEPT = 256  # types kept per worker


class SentTypeCache:
    """The types that the host sent to this worker by value; those that were not used for long are forgotten."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Any] = OrderedDict()

    def get(self, name: str, load: Callable[[], Any]) -> Any:
        """Return the type of that name, loaded once."""
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
                return self._kept[name]
        found = load()
        with self._lock:
            found = self._kept.setdefault(name, found)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found


@dataclass(frozen=True)
class HostImports(UserImports):
    """What a call of the host may name: everything; `version` is of the files that its spec's module lies in."""

    sent_types: SentTypeCache = field(default_factory=SentTypeCache)
    version: str = ""

    def at(self, version: str) -> HostImports:
        return replace(self, version=version)

    @property
    def is_open(self) -> bool:
        return True

    def sent(self, name: str, label: str) -> Any:
        """Return a class, or another type, that the host sent by value; the same one each time.

        Raises:
            Failure: InvalidInput, when it cannot be loaded here.
        """
        return self.sent_types.get(name, lambda: loaded(name, label, HostReferences(self)))

    def resolve(self, path: str, what: str) -> Any:
        """Return the object that `module:QualName` names; its module is imported at the first need.

        Raises:
            Failure: UnknownName, when there is no such module, or no such object in it.
        """
        module_name, _, qualified = path.partition(":")
        module = imported(module_name, self.version)
        found: Any = module
        for part in qualified.split("."):
            found = getattr(found, part, _NOTHING) if part else _NOTHING
            if found is _NOTHING or isinstance(found, ModuleType):
                public = (f"{module_name}:{name}" for name in vars(module) if not name.startswith("_"))
                raise unknown_name(what, path, public, where=f"the module {module_name!r}")
        return found

    def resolve_own(self, path: str, what: str) -> Any:
        return self.resolve(path, what)

    def has(self, cls: type) -> bool:
        found: Any = sys.modules.get(cls.__module__)
        for part in cls.__qualname__.split("."):
            found = getattr(found, part, None)
        return found is cls and cls.__module__ != "__main__"


_NOTHING = object()
