"""What the endpoint of a parity check puts on the wire for a reply, whole or as a stream, in each family of dialects.

A reply is {"text"} with, as it may be, "finish", "refusal", "calls" (each {"id", "name", "arguments": text or JSON}),
"reasoning", "logprobs" and "usage"; or what stands for a whole body: "body", or "error" with "status". With "broken"
a stream ends before its last events.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from tests.support.parity import gemini_replies

Reply = Mapping[str, Any]
Family = Literal["openai", "anthropic", "gemini"]
PIECE = 7  # characters in an event of a stream
_STOPS = {
    "error": "end_turn",
    "length": "max_tokens",
    "content_filter": "refusal",
    "tool_calls": "tool_use",
    "stop": "end_turn",
}
_USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def family_of(model: str) -> Family:
    """Whose dialect a common model's provider speaks."""
    return "anthropic" if model.startswith("anthropic/") else "gemini" if model.startswith("gemini/") else "openai"


def reply_of(reply: Reply, family: Family) -> tuple[int, bytes]:
    """Status and body of what the endpoint answers."""
    status = reply.get("status", 200)
    if "body" in reply:
        body = reply["body"]
        return status, body if isinstance(body, bytes) else body.encode()
    if "error" in reply:
        fault: dict[str, Any] = (
            {"type": "error", "error": reply["error"]} if family == "anthropic" else {"error": reply["error"]}
        )
        return status, json.dumps(fault).encode()
    whole = {"openai": _openai, "anthropic": _anthropic, "gemini": gemini_replies.whole}[family]
    return status, json.dumps(whole(reply)).encode()


def stream_of(reply: Reply, family: Family) -> tuple[int, bytes]:
    """Status and body where a stream was asked for: an error is what it is without one."""
    if "body" in reply or "error" in reply:
        return reply_of(reply, family)
    made = {"openai": _openai_events, "anthropic": _anthropic_events, "gemini": gemini_replies.events}[family]
    events = list(made(reply))
    if reply.get("broken"):
        events = events[: len(events) // 2]
    return 200, "".join(events).encode()


def without_usage(reply: Mapping[str, Any]) -> dict[str, Any]:
    """The reply with sound counters of tokens: DSPy fails over odd ones, which DSPex leaves out."""
    return {name: value for name, value in reply.items() if name != "usage"}


def _finish(reply: Reply) -> str:
    return str(reply.get("finish") or ("tool_calls" if reply.get("calls") else "stop"))


# --- OpenAI's chat completions ------------------------------------------------------------------------------------


def _openai(reply: Reply) -> dict[str, Any]:
    message = {"role": "assistant", "content": reply.get("text")}
    message |= {name: reply[name] for name in ("refusal",) if name in reply}
    if "reasoning" in reply:
        message["reasoning_content"] = reply["reasoning"]
    if calls := reply.get("calls"):
        message["tool_calls"] = [_openai_call(call) for call in calls]
    choice = {"index": 0, "message": message, "finish_reason": _finish(reply)}
    if "logprobs" in reply:
        choice["logprobs"] = reply["logprobs"]
    if "choice_error" in reply:
        choice["error"] = reply["choice_error"]
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "x", "choices": [choice]}
    return body | {"usage": reply.get("usage", _USAGE)}


def _openai_call(call: Mapping[str, Any]) -> dict[str, Any]:
    made = {"type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
    return {"id": call["id"], **made} if call.get("id") else made


def _openai_events(reply: Reply) -> Iterator[str]:
    def event(delta: Mapping[str, Any], **more: Any) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": None} | more
        body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "x", "choices": [choice]}
        return f"data: {json.dumps(body)}\n\n"

    yield event({"role": "assistant", "content": ""})
    for piece in _pieces(reply.get("reasoning")):
        yield event({"reasoning_content": piece})
    for piece in _pieces(reply.get("text")):
        yield event({"content": piece})
    for piece in _pieces(reply.get("refusal")):
        yield event({"refusal": piece})
    for at, call in enumerate(reply.get("calls", ())):
        first, *others = [*_pieces(call["arguments"])] or [""]
        head = {"index": at, "id": call.get("id"), "type": "function"}
        yield event({"tool_calls": [{**head, "function": {"name": call["name"], "arguments": first}}]})
        for piece in others:
            yield event({"tool_calls": [{"index": at, "function": {"arguments": piece}}]})
    if "logprobs" in reply:
        yield event({}, logprobs=reply["logprobs"])
    yield event({}, finish_reason=_finish(reply))
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "x", "choices": []}
    yield f"data: {json.dumps(body | {'usage': _USAGE})}\n\n"
    yield "data: [DONE]\n\n"


# --- Anthropic's messages -----------------------------------------------------------------------------------------


def _anthropic(reply: Reply) -> dict[str, Any]:
    blocks = [] if reply.get("text") is None else [{"type": "text", "text": reply["text"]}]
    if "reasoning" in reply:
        blocks.insert(0, {"type": "thinking", "thinking": reply["reasoning"], "signature": "s"})
    for at, call in enumerate(reply.get("calls", ())):
        blocks.append(
            {"type": "tool_use", "id": call.get("id") or f"t{at}", "name": call["name"], "input": _input(call)}
        )
    usage = {"input_tokens": 3, "output_tokens": 2}
    body = {"id": "m", "type": "message", "role": "assistant", "model": "x", "content": blocks, "usage": usage}
    return body | {"stop_reason": _STOPS[_finish(reply)]}


def _input(call: Mapping[str, Any]) -> Any:
    """The arguments as Anthropic's API can send them: JSON, or what is left of it as a text."""
    given = call["arguments"]
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except ValueError:
        return given


def _anthropic_events(reply: Reply) -> Iterator[str]:
    def event(kind: str, **facts: Any) -> str:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **facts})}\n\n"

    whole = _anthropic({**reply, "calls": ()})
    yield event("message_start", message=whole | {"content": [], "stop_reason": None})
    blocks = [*whole["content"], *reply.get("calls", ())]
    for at, block in enumerate(blocks):
        if "type" not in block:
            named = {"type": "tool_use", "id": block.get("id") or f"t{at}", "name": block["name"], "input": {}}
            yield event("content_block_start", index=at, content_block=named)
            for piece in _pieces(block["arguments"]):
                yield event("content_block_delta", index=at, delta={"type": "input_json_delta", "partial_json": piece})
        elif block["type"] == "text":
            yield event("content_block_start", index=at, content_block={"type": "text", "text": ""})
            for piece in _pieces(block["text"]):
                yield event("content_block_delta", index=at, delta={"type": "text_delta", "text": piece})
        else:
            yield event("content_block_start", index=at, content_block={"type": "thinking", "thinking": ""})
            for piece in _pieces(block["thinking"]):
                yield event("content_block_delta", index=at, delta={"type": "thinking_delta", "thinking": piece})
        yield event("content_block_stop", index=at)
    yield event("message_delta", delta={"stop_reason": _STOPS[_finish(reply)]}, usage={"output_tokens": 2})
    yield event("message_stop")


def _pieces(given: Any) -> Iterator[str]:
    text = given if isinstance(given, str) else "" if given is None else json.dumps(given)
    return (text[at : at + PIECE] for at in range(0, len(text), PIECE))
