"""Capture the messages of a program's first LM call; nothing is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dspy

from .dspy_parts import HAS_LM15
from .worker_lm import options_of


class PromptCaptured(BaseException):
    """The messages are there; not an Exception, so that no module takes it for a failed attempt."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.messages = messages


CAPTURE = "dspex_capture"  # among DSPy's settings: nothing is sent


def refuse_to_send(call: Any) -> None:
    """Stop the program with the messages of a prepared LM call, where nothing is to be sent.

    Raises:
        PromptCaptured: they are wanted.
    """
    if dspy.settings.get(CAPTURE):
        raise PromptCaptured(call.legacy.get("messages") or [])


class CapturingLM(dspy.LM):  # type: ignore[misc]
    """An LM with the abilities of another that stops the program when the first messages are ready."""

    def __call__(self, prompt: Any = None, *, messages: Any = None, **options: Any) -> Any:
        raise PromptCaptured(messages)


def capturing(record: Mapping[str, Any], real: dspy.LM) -> CapturingLM:
    """Return the capturing LM for a record; `real` is the one that would be asked."""
    engine = {"engine": real.engine} if HAS_LM15 else {}
    return CapturingLM(str(record["model"]), cache=False, num_retries=0, **engine, **options_of(record))
