"""Resolve what the host's pickles refer to, for one call: DSPy's types, the host's tools, sent classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..values.dspy_references import DspyReferences
from ..values.host_tools import tools_from
from .user_imports import UserImports


class HostReferences(DspyReferences):
    """DSPy's types, the host's tools and the classes that were sent, for what one call brings."""

    def __init__(self, imports: UserImports, tool_set: str | None = None) -> None:
        super().__init__()
        self._imports = imports
        self._tool_set = tool_set

    def host_tool(self, descriptor: Mapping[str, Any]) -> Any:
        """Return DSPy's tool for one of the host's."""
        return tools_from([{**descriptor, "id": self._tool_set}])[0]

    def sent_code(self, name: str, label: str) -> Any:
        """Return a class that the host sent by value."""
        return self._imports.sent(name, label)
