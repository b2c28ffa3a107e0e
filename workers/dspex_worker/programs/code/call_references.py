"""The meaning, in one call of the host, of the names in its pickles: see `types.host_references`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dspy
from dspy import experimental

from ..values.host_tools import tools_from
from .user_imports import UserImports


class HostMeanings:
    """DSPy's types, the host's tools and the classes that were sent, for what one call brings."""

    def __init__(self, imports: UserImports, tool_set: str | None = None) -> None:
        self._imports = imports
        self._tool_set = tool_set
        self._unfinished: list[Any] = []

    def dspy_type(self, name: str) -> Any:
        """Return DSPy's class of that name."""
        if name.startswith("Code["):
            return dspy.Code[name[len("Code['") : -len("']")]]
        found: Any = experimental if not hasattr(dspy, name.partition(".")[0]) else dspy
        for part in name.removeprefix("experimental.").split("."):
            found = getattr(found, part)
        return found

    def host_tool(self, descriptor: Mapping[str, Any]) -> Any:
        """Return DSPy's tool for one of the host's."""
        return tools_from([{**descriptor, "id": self._tool_set}])[0]

    def sent_code(self, name: str, label: str) -> Any:
        """Return a class that the host sent by value."""
        return self._imports.sent(name, label)

    def complete_later(self, model: Any) -> None:
        """Keep a model whose validators are to be made."""
        self._unfinished.append(model)

    def complete(self) -> None:
        """Have the validators made of every model that was read: each may hold another."""
        for model in self._unfinished:
            model.model_rebuild(force=True)
        self._unfinished.clear()
