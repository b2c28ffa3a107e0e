"""Choose DSPy's adapters by name. Adapters keep nothing between calls, so one of each serves every call.

A call names one by text, or as {"name", "use_native_function_calling"} where it overrides the adapter's own default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dspy

from .dspy_errors import invalid_input, unknown_name

NAMES = ("chat", "json", "xml", "two_step")
_MADE = {"chat": dspy.ChatAdapter, "json": dspy.JSONAdapter, "xml": dspy.XMLAdapter}
_SHARED: Mapping[str, dspy.Adapter] = {name: make() for name, make in _MADE.items()}
_DECIDED: Mapping[tuple[str, bool], dspy.Adapter] = {
    (name, is_native): _MADE[name](use_native_function_calling=is_native)
    for name in ("chat", "json")
    for is_native in (True, False)
}


def default_adapter(lm: dspy.LM | None, record: Mapping[str, Any] | None) -> dspy.Adapter:
    """Return the adapter of a call that names none: what the user's modules configured, else what the LM suggests."""
    configured = dspy.settings.adapter
    return configured if isinstance(configured, dspy.Adapter) else adapter_named(None, lm, record)


def adapter_named(
    adapter: str | Mapping[str, Any] | None, lm: dspy.LM | None, record: Mapping[str, Any] | None
) -> dspy.Adapter:
    """Return the adapter for a call; None means json for an LM with structured outputs, chat for any other.

    Raises:
        Failure: UnknownName; InvalidInput, when two_step has no LM to extract with.
    """
    name = adapter.get("name") if isinstance(adapter, Mapping) else adapter
    is_native = adapter.get("use_native_function_calling") if isinstance(adapter, Mapping) else None
    if name is None:
        name = "json" if record and record.get("structured_outputs") else "chat"
    if is_native is not None and (name, bool(is_native)) in _DECIDED:
        return _DECIDED[name, bool(is_native)]
    if name == "two_step":
        if lm is None:
            raise invalid_input("The two_step adapter needs an LM to extract the fields with.")
        return dspy.TwoStepAdapter(extraction_model=lm)
    if name not in _SHARED:
        raise unknown_name("adapter", name, NAMES)
    return _SHARED[name]
