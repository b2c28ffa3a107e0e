"""Read the values of a call that the host sent as Python objects: of the call's own classes, tools and types.

Only calls that the host itself makes come here; nothing is ever sent back so.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from typing import Any

from ...types.host_references import meaning
from ..dspy_errors import invalid_input
from .call_references import HostMeanings
from .host_imports import imported
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
    meanings = HostMeanings(imports, tool_set)
    try:
        with meaning(meanings):
            value = _ValueReader(io.BytesIO(data)).load()
        meanings.complete()
    except (ImportError, AttributeError) as error:
        raise invalid_input(
            f"The value of {name!r} cannot be read in the worker: {error}. What it refers to by name must be "
            f"importable there: install it beside the workers, or put it on this process's sys.path.",
            name,
        ) from error
    return value


class _PlainReader(pickle.Unpickler):
    """Reads what holds no objects."""

    def find_class(self, module: str, name: str) -> Any:
        raise invalid_input(f"A map of values holds {module}.{name}.")


class _ValueReader(pickle.Unpickler):
    """Reads one value; modules are looked for where the host looks."""

    def find_class(self, module: str, name: str) -> Any:
        imported(module)
        return super().find_class(module, name)
