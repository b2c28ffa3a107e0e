"""`OwnAdapter`: an adapter of a class of the user's, which runs in workers, where DSPy is."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, eq=False)
class OwnAdapter:
    """A class, or what makes an adapter, by `path` ("package.module:Class") or as itself; or a live adapter.

    Equal to itself alone: what it does may change between two that look alike.
    """

    path: str | None = None
    thing: Any = None  # a class or an adapter that has no path, or is alive
    arguments: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    is_named_by_file: bool = False  # a file has nothing imported but what stands in the pool's `imports`

    @property
    def name(self) -> str:
        """Its name for people."""
        if self.path is not None:
            return self.path
        return str(getattr(self.thing, "__qualname__", None) or type(self.thing).__qualname__)

    def __repr__(self) -> str:
        return f"<adapter {self.name}>" if self.thing is None else f"<adapter {self.name} at {id(self):#x}>"


def is_live(thing: Any) -> bool:
    """Whether this is an adapter, and not what makes one."""
    return thing is not None and not isinstance(thing, type) and is_adapter_class(type(thing))


def is_adapter_class(kind: Any) -> bool:
    """Whether this is a class of adapters of DSPy's; where DSPy is not loaded there are none."""
    found = sys.modules.get("dspy.adapters.base")
    base = getattr(found, "Adapter", None)
    return isinstance(base, type) and isinstance(kind, type) and issubclass(kind, base)
