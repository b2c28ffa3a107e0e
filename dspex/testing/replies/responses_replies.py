"""Replies of the Responses endpoint: a whole reply, the events of a stream. Pure."""

from __future__ import annotations

import json
from typing import Any

from ..script import FakeReply, FakeRequest
from .openai_replies import error as error
from .openai_replies import in_parts, pieces, usage

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def whole(request: FakeRequest, reply: FakeReply, text: str | None, number: int) -> bytes:
    """Return a reply's body."""
    return _dump(_response(request, reply, text, number))


def events(request: FakeRequest, reply: FakeReply, text: str | None, number: int) -> list[bytes]:
    """A streamed reply in parts: one per piece of the text; what comes before and after rides with its neighbor."""
    response = _response(request, reply, text, number)
    begun = {**response, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    before, after = [_event("response.created", response=begun)], []
    at = 0
    for at, item in enumerate(response["output"]):
        empty = {**item, "content": []} if item["type"] == "message" else {**item, "arguments": ""}
        added = _event("response.output_item.added", output_index=at, item=item if _is_thought(item) else empty)
        if item["type"] == "function_call":
            after += [added, _event("response.function_call_arguments.delta", output_index=at, delta=item["arguments"])]
            continue
        before.append(added)
        if _is_thought(item):
            said = item["summary"][0]["text"]
            before.append(_event("response.reasoning_summary_text.delta", output_index=at, delta=said))
    place = next((i for i, item in enumerate(response["output"]) if item["type"] == "message"), at)
    middle = [_event("response.output_text.delta", output_index=place, delta=piece) for piece in pieces(reply, text)]
    return in_parts(before, middle, [*after, _event(f"response.{response['status']}", response=response)])


def _response(request: FakeRequest, reply: FakeReply, text: str | None, number: int) -> dict[str, Any]:
    reason = _INCOMPLETE.get(reply.finish_reason)
    counts = usage(request, reply, text)
    tokens = {"input": counts["prompt_tokens"], "output": counts["completion_tokens"]}
    return {
        "id": f"fake-{number}",
        "object": "response",
        "created_at": 0,
        "model": request.body.get("model", "fake"),
        "status": "completed" if reason is None else "incomplete",
        "incomplete_details": None if reason is None else {"reason": reason},
        "error": None,
        "output": [*_thoughts(reply), *_message(text), *_calls(reply)],
        "usage": {
            **{f"{name}_tokens": tokens[name] for name in tokens},
            "total_tokens": counts["total_tokens"],
        },
    }


def _thoughts(reply: FakeReply) -> list[dict[str, Any]]:
    if reply.reasoning is None:
        return []
    return [{"type": "reasoning", "id": "rs_0", "summary": [{"type": "summary_text", "text": reply.reasoning}]}]


def _message(text: str | None) -> list[dict[str, Any]]:
    if text is None:
        return []
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return [{"type": "message", "id": "msg_0", "role": "assistant", "status": "completed", "content": content}]


def _calls(reply: FakeReply) -> list[dict[str, Any]]:
    return [
        {
            "type": "function_call",
            "id": f"fc_{i}",
            "call_id": f"call_{i}",
            "name": name,
            "arguments": json.dumps(dict(arguments)),
        }
        for i, (name, arguments) in enumerate(reply.tool_calls)
    ]


def _is_thought(item: dict[str, Any]) -> bool:
    return bool(item["type"] == "reasoning")


def _event(kind: str, **members: Any) -> bytes:
    return f"event: {kind}\n".encode() + b"data: " + _dump({"type": kind, **members}) + b"\n\n"


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
