"""Read the values of a call that the host sent as Python objects: of the call's own classes, tools and types.

Only calls that the host itself makes come here; nothing is ever sent back so.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from typing import Any

from ..dspy_errors import invalid_input
from ..values.dspy_references import value_from
from .call_references import HostReferences
from .user_imports import UserImports


def values_from(carried: bytes | None, imports: UserImports, tool_set: str | None = None) -> dict[str, Any]:
    """Return the values by name; tools among them are called in the parent, under the set's id.

    Raises:
        Failure: InvalidInput, when a client of the control socket sent them, or they cannot be read here.
    """
    if carried is None:
        return {}
    if not imports.is_open:
        raise invalid_input("Values come as plain data over the control socket, never as Python objects.")
    parts: Mapping[str, bytes] = _PlainReader(io.BytesIO(carried)).load()
    return {name: _value(name, data, imports, tool_set) for name, data in parts.items()}


def _value(name: str, data: bytes, imports: UserImports, tool_set: str | None) -> Any:
    return value_from(data, f"The value of {name!r}", HostReferences(imports, tool_set), name)


class _PlainReader(pickle.Unpickler):
    """Reads what holds no objects."""

    def find_class(self, module: str, name: str) -> Any:
        raise invalid_input(f"A map of values holds {module}.{name}.")
