"""Chat Completions: a whole reply, the events of a stream, an error."""

from __future__ import annotations

import json
import re
from typing import Any

from dspex.testing.script import FakeReply, FakeRequest


def whole(request: FakeRequest, reply: FakeReply, text: str | None, number: int) -> bytes:
    """A reply's body."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if reply.reasoning is not None:
        message["reasoning_content"] = reply.reasoning
    if reply.tool_calls:
        message["tool_calls"] = _calls(reply)
    finish = "tool_calls" if reply.tool_calls else reply.finish_reason
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return _dump(
        {**_frame(request, number, "chat.completion"), "choices": [choice], "usage": usage(request, reply, text)}
    )


def events(request: FakeRequest, reply: FakeReply, text: str | None, number: int) -> list[bytes]:
    """The events of a streamed reply."""
    frame = _frame(request, number, "chat.completion.chunk")
    deltas: list[dict[str, Any]] = [{"role": "assistant"}]
    if reply.reasoning is not None:
        deltas.append({"reasoning_content": reply.reasoning})
    deltas += [{"content": piece} for piece in pieces(reply, text)]
    for index, call in enumerate(_calls(reply)):
        deltas.append({"tool_calls": [{"index": index, **call}]})
    found = [{**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    finish = "tool_calls" if reply.tool_calls else reply.finish_reason
    found.append({**frame, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    if (request.body.get("stream_options") or {}).get("include_usage"):
        found.append({**frame, "choices": [], "usage": usage(request, reply, text)})
    return [b"data: " + _dump(event) + b"\n\n" for event in found] + [b"data: [DONE]\n\n"]


def error(reply: FakeReply) -> bytes:
    """An error's body."""
    return _dump({"error": dict(reply.error or {"message": f"scripted status {reply.status}"})})


def usage(request: FakeRequest, reply: FakeReply, text: str | None) -> dict[str, int]:
    """Token counts: as scripted, else a quarter of the characters."""
    if reply.usage is not None:
        return dict(reply.usage)
    prompt, completion = len(request.text) // 4 + 1, len(text or "") // 4 + 1
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def pieces(reply: FakeReply, text: str | None) -> list[str]:
    """The parts in which the text arrives."""
    return list(reply.chunks) if reply.chunks is not None else re.findall(r"\s*\S+\s*", text or "")


def _calls(reply: FakeReply) -> list[dict[str, Any]]:
    return [
        {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": json.dumps(dict(arguments))}}
        for i, (name, arguments) in enumerate(reply.tool_calls)
    ]


def _frame(request: FakeRequest, number: int, kind: str) -> dict[str, Any]:
    return {"id": f"fake-{number}", "object": kind, "created": 0, "model": request.body.get("model", "fake")}


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
