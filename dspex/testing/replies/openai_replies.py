"""Replies of the Chat Completions endpoint: a whole reply, the events of a stream, an error."""

from __future__ import annotations

import json
import re
from typing import Any

from ..script import FakeReply, FakeRequest


def whole(request: FakeRequest, reply: FakeReply, text: str | None, number: int) -> bytes:
    """Return a reply's body."""
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
    """A streamed reply in parts: one per piece of the text; what comes before and after rides with its neighbor."""
    frame = _frame(request, number, "chat.completion.chunk")
    before: list[dict[str, Any]] = [{"role": "assistant"}]
    if reply.reasoning is not None:
        before.append({"reasoning_content": reply.reasoning})
    after = [{"tool_calls": [{"index": index, **call}]} for index, call in enumerate(_calls(reply))]
    finish = "tool_calls" if reply.tool_calls else reply.finish_reason

    def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
        return _event({**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    end = [*(event(delta) for delta in after), event({}, finish)]
    if (request.body.get("stream_options") or {}).get("include_usage"):
        end.append(_event({**frame, "choices": [], "usage": usage(request, reply, text)}))
    end.append(b"data: [DONE]\n\n")
    return in_parts(
        [event(delta) for delta in before], [event({"content": piece}) for piece in pieces(reply, text)], end
    )


def in_parts(before: list[bytes], middle: list[bytes], after: list[bytes]) -> list[bytes]:
    """The middle's parts, the first led by all that comes before, the last followed by all that comes after."""
    parts = list(middle) or [b""]
    parts[0] = b"".join(before) + parts[0]
    parts[-1] += b"".join(after)
    return parts


def error(reply: FakeReply) -> bytes:
    """Return an error's body."""
    return _dump({"error": reply.envelope})


def usage(request: FakeRequest, reply: FakeReply, text: str | None) -> dict[str, int]:
    """Return token counts: as scripted, else a quarter of the characters."""
    if reply.usage is not None:
        return dict(reply.usage)
    prompt, completion = len(request.text) // 4 + 1, len(text or "") // 4 + 1
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def pieces(reply: FakeReply, text: str | None) -> list[str]:
    """Return the parts in which the text arrives."""
    return list(reply.chunks) if reply.chunks is not None else re.findall(r"\s*\S+\s*", text or "")


def _calls(reply: FakeReply) -> list[dict[str, Any]]:
    return [
        {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": json.dumps(dict(arguments))}}
        for i, (name, arguments) in enumerate(reply.tool_calls)
    ]


def _frame(request: FakeRequest, number: int, kind: str) -> dict[str, Any]:
    return {"id": f"fake-{number}", "object": kind, "created": 0, "model": request.body.get("model", "fake")}


def _event(value: Any) -> bytes:
    return b"data: " + _dump(value) + b"\n\n"


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
