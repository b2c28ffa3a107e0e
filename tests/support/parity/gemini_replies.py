"""What Gemini's API puts on the wire for a reply of a parity check (`wire_replies`), whole or as a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

PIECE = 7  # characters in an event of a stream
_STOPS: Final = {"length": "MAX_TOKENS", "content_filter": "SAFETY", "error": "MALFORMED_RESPONSE"}
_USAGE: Final = {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}


def whole(reply: Mapping[str, Any]) -> dict[str, Any]:
    """The answer as one body."""
    usage = reply.get("usage", _USAGE)
    if reply.get("refusal") and not reply.get("text"):
        blocked = {"blockReason": "OTHER", "blockReasonMessage": reply["refusal"]}
        return {"promptFeedback": blocked, "usageMetadata": usage}
    candidate = {"index": 0, "content": {"role": "model", "parts": list(_parts(reply))}, **_end(reply)}
    if "logprobs" in reply:
        candidate["logprobsResult"] = _logprobs(reply["logprobs"])
    return {"candidates": [candidate], "modelVersion": "x", "responseId": "c", "usageMetadata": usage}


def events(reply: Mapping[str, Any]) -> Iterator[str]:
    """The answer in events."""
    last = whole(reply)
    told = _logprobs(reply["logprobs"]) if "logprobs" in reply else None
    for part in _parts(reply) if "candidates" in last else ():
        text = part.get("text", "")
        pieces = [{**part, "text": text[at : at + PIECE]} for at in range(0, len(text), PIECE)] or [part]
        for piece in pieces:
            candidate: dict[str, Any] = {"index": 0, "content": {"role": "model", "parts": [piece]}}
            if told is not None and "text" in piece and not piece.get("thought"):
                candidate["logprobsResult"], told = told, None
            yield _event({"candidates": [candidate]})
    if "candidates" in last:
        last["candidates"] = [{"index": 0, "content": {"role": "model", "parts": []}, **_end(reply)}]
    yield _event(last)


def _parts(reply: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if "reasoning" in reply:
        yield {"text": reply["reasoning"], "thought": True}
    if reply.get("text") is not None:
        yield {"text": reply["text"]}
    for call in reply.get("calls", ()):
        made = {"name": call["name"], "args": _arguments(call["arguments"])}
        yield {"functionCall": {**made, **({"id": call["id"]} if call.get("id") else {})}}


def _arguments(given: Any) -> Any:
    try:
        return json.loads(given) if isinstance(given, str) else given
    except ValueError:
        return given


def _end(reply: Mapping[str, Any]) -> dict[str, Any]:
    return {"finishReason": _STOPS.get(str(reply.get("finish")), "STOP")}


def _logprobs(given: Any) -> Any:
    """OpenAI's log probabilities as this API lists them."""
    listed = (given or {}).get("content")
    if listed is None:
        return None
    return {
        "chosenCandidates": [_token(each) for each in listed],
        "topCandidates": [{"candidates": [_token(one) for one in each.get("top_logprobs", ())]} for each in listed],
    }


def _token(each: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": each["token"], "tokenId": 5, "logProbability": each["logprob"]}


def _event(body: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(body)}\n\n"
