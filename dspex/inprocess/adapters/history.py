"""Past turns of a conversation: which input holds them, and what a turn is.

Turns with tool calls are rendered by workers only (`support.py` says so before anything is sent).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dspex.errors import InvalidInput
from dspex.inprocess.annotations import is_dspy_type
from dspex.inprocess.signatures import Signature


def history_field(sig: Signature) -> str | None:
    """The name of the input that is a `dspy.History`; the first one, as in DSPy."""
    for name, field in sig.input_fields.items():
        if is_dspy_type(field.annotation) and field.annotation.dspy_name == "dspy.History":
            return name
    return None


def turns_of(history: Any) -> Sequence[Mapping[str, Any]]:
    """The turns of a History, of its wire form `{"messages": [...]}`, or of a plain list; none for None.

    Raises: InvalidInput for anything else.
    """
    if history is None:
        return ()
    found = history.get("messages") if isinstance(history, Mapping) else getattr(history, "messages", history)
    if not isinstance(found, list | tuple) or not all(isinstance(turn, Mapping) for turn in found):
        raise InvalidInput("A history is a History, or a list of mappings with one mapping for each turn.")
    return found


def has_tool_calls(history: Any) -> bool:
    """Whether any turn holds tool calls, which DSPy renders as messages of their own."""
    return any(
        (isinstance(value, Mapping) and "tool_calls" in value) or hasattr(value, "tool_calls")
        for turn in turns_of(history)
        for value in turn.values()
    )
