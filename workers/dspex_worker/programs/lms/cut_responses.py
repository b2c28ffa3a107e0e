"""Let lm15 know the end of a streamed response that was cut: it waits for "response.completed" alone.

Its reader of whole responses knows both ends; a stream that ends in "response.incomplete" it takes for one that broke
off, after it was paid for.
"""

from __future__ import annotations

from dataclasses import replace
from functools import wraps
from typing import Any

from ..dspy_parts import part


def install() -> None:
    """Change lm15's reader of streams, in this process from now on."""
    reader: Any = part("dspy.lm15", "OpenAILM")
    reader._parse_single_stream_event = _reading(reader._parse_single_stream_event)


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
