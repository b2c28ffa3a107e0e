"""Capture the messages of a program's first LM call, whichever LM it is of; nothing is sent."""

from __future__ import annotations

from typing import Any

from dspy.utils.callback import BaseCallback


class PromptCaptured(BaseException):
    """The messages are there; not an Exception, so that neither a module nor DSPy takes it for a failure."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.messages = messages


class PromptCapture(BaseCallback):  # type: ignore[misc]
    """Stops the program before its first LM is asked: DSPy calls it before anything else of an LM call."""

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        messages, prompt = inputs.get("messages"), inputs.get("prompt")
        if messages is None and not isinstance(prompt, str):
            from dspy.clients.lm15_boundary import history_messages

            messages = history_messages(prompt or inputs.get("kwargs", {}).get("request"))  # a request of lm15's
        raise PromptCaptured(messages or [{"role": "user", "content": prompt}])
