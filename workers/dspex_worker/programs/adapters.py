"""DSPy's adapters by name. Adapters keep nothing between calls, so one of each serves every call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dspy

from dspex_worker.programs.errors import invalid_input, unknown_name

NAMES = ("chat", "json", "xml", "two_step")
_SHARED: Mapping[str, dspy.Adapter] = {
    "chat": dspy.ChatAdapter(),
    "json": dspy.JSONAdapter(),
    "xml": dspy.XMLAdapter(),
}


def adapter_named(name: str | None, lm: dspy.LM | None, record: Mapping[str, Any] | None) -> dspy.Adapter:
    """The adapter for a call; None means json for an LM with structured outputs, chat for any other.

    Raises:
        Failure: UnknownName; InvalidInput, when two_step has no LM to extract with.
    """
    if name is None:
        return _SHARED["json" if record and record.get("structured_outputs") else "chat"]
    if name == "two_step":
        if lm is None:
            raise invalid_input("The two_step adapter needs an LM to extract the fields with.")
        return dspy.TwoStepAdapter(extraction_model=lm)
    if name not in _SHARED:
        raise unknown_name("adapter", name, NAMES)
    return _SHARED[name]
