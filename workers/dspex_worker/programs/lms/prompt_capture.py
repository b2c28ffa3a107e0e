"""Capture the messages of a program's first LM call, whichever LM it is of; nothing is sent."""

from __future__ import annotations

import logging
from typing import Any

import dspy
from dspy.utils.callback import BaseCallback


class PromptCaptured(BaseException):
    """The messages are there; not an Exception, so that neither a module nor DSPy takes it for a failure."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.messages = messages


CAPTURE = "dspex_capture"  # among DSPy's settings: nothing is sent


def _is_news(record: logging.LogRecord) -> bool:
    """Return whether a warning of DSPy's is one: what comes before a prompt's inputs is rendered without them."""
    return not (str(record.msg).startswith("Not all input fields") and dspy.settings.get(CAPTURE))


logging.getLogger("dspy.predict.predict").addFilter(_is_news)


def refuse_to_send(call: Any) -> None:
    """Stop the program with the messages of a prepared LM call, where nothing is to be sent.

    Code that sets callbacks of its own takes `PromptCapture` out of the settings; this is reached in any case.

    Raises:
        PromptCaptured: they are wanted.
    """
    if dspy.settings.get(CAPTURE):
        raise PromptCaptured(call.legacy.get("messages") or [])


class PromptCapture(BaseCallback):  # type: ignore[misc]
    """Stops the program before its first LM is asked: DSPy calls it before anything else of an LM call."""

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        messages, prompt = inputs.get("messages"), inputs.get("prompt")
        if messages is None and not isinstance(prompt, str):
            from dspy.clients.lm15_boundary import history_messages

            messages = history_messages(prompt or inputs.get("kwargs", {}).get("request"))  # a request of lm15's
        raise PromptCaptured(messages or [{"role": "user", "content": prompt}])
