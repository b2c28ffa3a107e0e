"""Name the adapters that a program may use."""

from __future__ import annotations

from typing import Literal, Protocol, get_args

AdapterName = Literal["chat", "json", "xml", "baml", "two_step"]
ADAPTERS: tuple[str, ...] = get_args(AdapterName)
OBJECT_ADAPTERS = frozenset({"json", "baml"})  # answered with one JSON object; those of DSPy never ask again


class NamedAdapter(Protocol):
    """An adapter that is more than its name."""

    @property
    def name(self) -> str: ...


def name_of(adapter: str | NamedAdapter | None) -> str | None:
    """Return the name by which an adapter is known."""
    return adapter if adapter is None or isinstance(adapter, str) else adapter.name
