"""Replies of the Messages endpoint: a whole reply, the events of a stream, an error."""

from __future__ import annotations

import json
import re
from typing import Any

from ..script import FakeReply, FakeRequest
from .openai_replies import in_parts, pieces, usage

_STOP = {"length": "max_tokens", "stop": "end_turn", "content_filter": "refusal"}


def whole(request: FakeRequest, reply: FakeReply, text: str | None, number: int) -> bytes:
    """Return a reply's body."""
    content: list[dict[str, Any]] = []
    if reply.reasoning is not None:
        content.append({"type": "thinking", "thinking": reply.reasoning, "signature": "fake"})
    if text is not None:
        content.append({"type": "text", "text": text})
    content += _calls(reply)
    return _dump({**_message(request, number), "content": content, **_end(request, reply, text)})


def events(request: FakeRequest, reply: FakeReply, text: str | None, number: int) -> list[bytes]:
    """A streamed reply in parts: one per piece of the text; what comes before and after rides with its neighbor."""
    end, at = _end(request, reply, text), 0 if reply.reasoning is None else 1
    start = {**_message(request, number), "content": [], "usage": {**end["usage"], "output_tokens": 0}}
    before = [
        _event({"type": "message_start", "message": start}),
        *_thought(reply),
        _event({"type": "content_block_start", "index": at, "content_block": {"type": "text", "text": ""}}),
    ]
    middle = [
        _event({"type": "content_block_delta", "index": at, "delta": {"type": "text_delta", "text": piece}})
        for piece in pieces(reply, text)
    ]
    after = [_event({"type": "content_block_stop", "index": at})]
    for index, call in enumerate(_calls(reply), start=at + 1):
        delta = {"type": "input_json_delta", "partial_json": json.dumps(call["input"])}
        after.append(_event({"type": "content_block_start", "index": index, "content_block": {**call, "input": {}}}))
        after.append(_event({"type": "content_block_delta", "index": index, "delta": delta}))
        after.append(_event({"type": "content_block_stop", "index": index}))
    counted = {"output_tokens": end["usage"]["output_tokens"]}
    after.append(_event({"type": "message_delta", "delta": {"stop_reason": end["stop_reason"]}, "usage": counted}))
    after.append(_event({"type": "message_stop"}))
    return in_parts(before, middle, after)


def _thought(reply: FakeReply) -> list[bytes]:
    """The events of a thinking block, signed at its end."""
    if reply.reasoning is None:
        return []
    deltas = [
        *({"type": "thinking_delta", "thinking": piece} for piece in re.findall(r"\s*\S+\s*", reply.reasoning)),
        {"type": "signature_delta", "signature": "fake"},
    ]
    empty = {"type": "thinking", "thinking": "", "signature": ""}
    return [
        _event({"type": "content_block_start", "index": 0, "content_block": empty}),
        *(_event({"type": "content_block_delta", "index": 0, "delta": delta}) for delta in deltas),
        _event({"type": "content_block_stop", "index": 0}),
    ]


def error(reply: FakeReply) -> bytes:
    """Return an error's body."""
    return _dump({"type": "error", "error": reply.envelope})


def _message(request: FakeRequest, number: int) -> dict[str, Any]:
    return {
        "id": f"fake-{number}",
        "type": "message",
        "role": "assistant",
        "model": request.body.get("model", "fake"),
    }


def _end(request: FakeRequest, reply: FakeReply, text: str | None) -> dict[str, Any]:
    counts = usage(request, reply, text)
    stop = "tool_use" if reply.tool_calls else _STOP.get(reply.finish_reason, reply.finish_reason)
    tokens = {"input_tokens": counts["prompt_tokens"], "output_tokens": counts["completion_tokens"]}
    return {"stop_reason": stop, "usage": tokens}


def _calls(reply: FakeReply) -> list[dict[str, Any]]:
    return [
        {"type": "tool_use", "id": f"toolu_{i}", "name": name, "input": dict(arguments)}
        for i, (name, arguments) in enumerate(reply.tool_calls)
    ]


def _event(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\n".encode() + b"data: " + _dump(event) + b"\n\n"


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
