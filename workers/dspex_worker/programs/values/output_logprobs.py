"""Keep the log probabilities that DSPy puts among a prediction's outputs apart from them, on their way to the host.

Inside a worker they stay where DSPy has them, for the modules that read `prediction.logprobs`. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAME = "logprobs"


def parted(outputs: Any) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the outputs that are a program's own, and the log probabilities, None if there are none."""
    whole = dict(outputs.items())
    found = whole.get(NAME)
    if not isinstance(found, dict) or not _is_of_dspy(found):
        return whole, None
    del whole[NAME]
    return whole, {"content": [_plain(token) for token in found["content"] or ()]}


def told(prediction: Any) -> list[dict[str, Any]]:
    """Return the log probabilities of a prediction's outputs, then of each of its completions if it has several.

    Empty if none has any.
    """
    completions = getattr(prediction, "completions", None)
    several = completions if completions is not None and len(completions) > 1 else ()
    found = [parted(one)[1] for one in (prediction, *several)]
    return [each or {} for each in found] if any(found) else []


def _is_of_dspy(value: dict[str, Any]) -> bool:
    """Whether it is what DSPy's LM gave, and no output of the same name: a dict whose members are attributes."""
    return type(value) is not dict and "content" in value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
