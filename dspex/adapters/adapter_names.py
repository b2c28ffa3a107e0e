"""Name the adapters that a program may use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from .given_adapter import Adapter

AdapterName = Literal["chat", "json", "xml", "baml", "two_step"]
ADAPTERS: tuple[str, ...] = get_args(AdapterName)
OBJECT_ADAPTERS = frozenset({"json", "baml"})  # answered with one JSON object; those of DSPy never ask again


def name_of(adapter: Adapter | None) -> str | None:
    """Return the name by which an adapter is known."""
    return adapter if adapter is None or isinstance(adapter, str) else adapter.name
