"""Let lm15 know of streams what it knows of whole answers: that one was cut, and what its prompt used.

Of the Responses API it waits for "response.completed" alone; a stream that ends in "response.incomplete" it takes for
one that broke off, after it was paid for. Anthropic's streams say at their beginning what the prompt used, which it
passes over.
"""

from __future__ import annotations

from dataclasses import replace
from functools import wraps
from typing import Any

from ..dspy_parts import Response, part
from .lm_transport import current_lm_call


def install() -> None:
    """Change lm15's reader of streams, in this process from now on."""
    reader: Any = part("dspy.lm15", "OpenAILM")
    reader._parse_single_stream_event = _reading(reader._parse_single_stream_event)


def with_begun_usage(response: Response) -> Response:
    """Return a streamed answer, with what its stream said of the prompt where its end says nothing of that."""
    asked = current_lm_call()
    if asked is None or not asked.begun_usage or response.usage.input_tokens is not None:
        return response
    return replace(response, usage=replace(response.usage, **asked.begun_usage))


def _reading(read: Any) -> Any:
    @wraps(read)
    def read_here(self: Any, request: Any, raw_event: Any, *, payload: Any = None) -> Any:
        if not isinstance(payload, dict) or payload.get("type") != "response.incomplete":
            return read(self, request, raw_event, payload=payload)
        end = read(self, request, raw_event, payload={**payload, "type": "response.completed"})
        return end if end.finish_reason == "tool_call" else replace(end, finish_reason=_reason(payload))

    return read_here


def _reason(payload: dict[str, Any]) -> str:
    details = (payload.get("response") or {}).get("incomplete_details") or {}
    return "content_filter" if "content_filter" in str(details.get("reason")) else "length"
