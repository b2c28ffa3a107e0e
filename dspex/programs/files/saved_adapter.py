"""A program's adapter in its file: a known name with its options, or an import path; never code, nor an LM."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ...adapters.adapter_names import ADAPTERS
from ...services.code import import_path_of

if TYPE_CHECKING:
    from ...adapters.given_adapter import Adapter

_SWITCHES = ("use_native_function_calling", "parallel_tool_calls", "use_json_adapter_fallback")
_TYPES = "native_response_types"


def adapter_to_file(adapter: Adapter | None) -> dict[str, Any]:
    """Return what a file says of an adapter; of one that it cannot hold, that it was withheld."""
    if adapter is None or isinstance(adapter, str):
        return {"adapter": adapter}
    from ...adapters.adapter_record import AdapterRecord

    if isinstance(adapter, AdapterRecord):
        if adapter.extraction_model is None:
            return {"adapter": adapter.name, "adapter_options": adapter.options}
        return {"adapter": None, "adapter_withheld": adapter.name}
    path = adapter.path or (import_path_of(adapter.thing) if isinstance(adapter.thing, type) else None)
    if path is None or adapter.arguments or path.startswith("__main__:"):
        return {"adapter": None, "adapter_withheld": adapter.name}
    return {"adapter": path}


def adapter_of_file(own: Mapping[str, Any]) -> Adapter | None:
    """Return the adapter that a file names; an import path is the pool's `imports` to vouch for."""
    name, options = own.get("adapter"), own.get("adapter_options") or {}
    if name is None or (name in ADAPTERS and not options):
        return name
    from ...adapters.given_adapter import adapter_from
    from ...adapters.own_adapter import OwnAdapter

    if name in ADAPTERS:
        return adapter_from({"name": name, **options})
    return OwnAdapter(name, is_named_by_file=True)


def strays_of_adapter(own: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of what no file of ours says of an adapter."""
    name = own.get("adapter")
    if not (name is None or name in ADAPTERS or _is_path(name)):
        yield "adapter"
    for option, value in (own.get("adapter_options") or {}).items():
        is_switch = option in _SWITCHES and isinstance(value, bool)
        is_types = option == _TYPES and isinstance(value, list) and all(map(_is_name, value))
        if name not in ADAPTERS or not (is_switch or is_types):
            yield f"adapter_options.{option}"


def _is_path(name: str) -> bool:
    module, colon, qualified = name.partition(":")
    return bool(colon) and all(map(_is_name, (*module.split("."), *qualified.split("."))))


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and name.isidentifier() and not name.startswith("__")
