"""Speak Anthropic's Messages dialect."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import LMError, LMUnexpectedError
from .answer import Answer, arguments_of, count, counters, no_answer, refused, tool_call
from .anthropic_request import body as body
from .asked_body import names_another as names_another
from .asked_body import streams as streams
from .error_envelopes import complaint_in, fault_in, fault_of
from .json_body import as_object, decode, json_in
from .stream_reader import StreamReader

if TYPE_CHECKING:
    from ..record import LM

API_VERSION = "2023-06-01"
_REFUSAL_MOST = 64 * 1024  # bytes of a refusal in which its id is looked for


def endpoint(lm: LM) -> str:
    """Return the URL of a completion."""
    return f"{lm.api_base}/messages"


def owns(lm: LM, url: str) -> bool:
    """Return whether the URL is a completion of the LM's model."""
    return url == endpoint(lm)


def reporting(asked: dict[str, Any]) -> dict[str, Any]:
    """Return a worker's request as it is: what is used is always reported."""
    return asked


def answer(lm: LM, body: bytes) -> Answer:
    """Return a 2xx response's body, read.

    Raises:
        LMError: the body is not a message.
    """
    data = decode(lm, body)
    if fault := fault_in(data):
        raise fault.error(lm)
    if not isinstance(data.get("content"), list):
        raise no_answer(lm, data)
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    blocks: Sequence[Any] = data.get("content") or ()
    for index, block in enumerate(blocks):
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "text":
            texts.append(str(block.get("text") or ""))
        elif kind == "thinking":
            thoughts.append(str(block.get("thinking") or block.get("text") or ""))
        elif kind == "tool_use":
            if not block.get("name"):
                raise LMUnexpectedError("The reply holds a tool call without a name.", model=lm.model)
            arguments = arguments_of(block.get("input"))
            calls.append(tool_call(lm, str(block.get("id") or f"tool_{index}"), str(block["name"]), arguments))
    finish = "tool_call" if calls else _finish(data.get("stop_reason"))
    if finish == "content_filter" and not any(texts):
        raise refused(lm, _explanation(data))
    empty = not (texts or thoughts or calls)
    return Answer(
        text="".join(texts) if texts or empty else None,
        model=str(data.get("model") or lm.name),
        finish_reason=finish,
        usage=usage(data.get("usage")),
        tool_calls=calls,
        reasoning="".join(thoughts) or None,
    )


def repaired(lm: LM, body: bytes) -> bytes:
    """Return the body with tool inputs that are no objects in the native form: DSPy's reader would empty them."""
    if b'"tool_use"' not in body:
        return body
    data = decode(lm, body)
    blocks = [
        block for block in data.get("content") or () if isinstance(block, dict) and block.get("type") == "tool_use"
    ]
    odd = [block for block in blocks if not isinstance(block.get("input"), dict)]
    for block in odd:
        block["input"] = arguments_of(block.get("input"))
    return json.dumps(data).encode() if odd else body  # ASCII: a reply may hold half a surrogate pair


def reader(lm: LM) -> StreamReader:
    """Return a reader for a streamed response."""
    return _AnthropicStream(lm)


def failure(lm: LM, status: int, body: bytes) -> LMError:
    """Return the error that a response of 300 and more stands for."""
    return fault_of(body).error(lm, status=status, request_id=str(_request_id(body) or "") or None)


def usage_in(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the counters that a response or an event holds."""
    return usage(data.get("usage"))


def usage(data: Any) -> dict[str, Any]:
    """Return the counters of a response in DSPy's shape: prompt tokens include what came from and went to the cache."""
    if not isinstance(data, dict):
        return {}
    inputs, outputs = count(data.get("input_tokens")), count(data.get("output_tokens"))
    read, written = count(data.get("cache_read_input_tokens")), count(data.get("cache_creation_input_tokens"))
    if inputs is not None:
        inputs += (read or 0) + (written or 0)
    details = data.get("output_tokens_details")
    return counters(
        inputs,
        outputs,
        inputs + outputs if inputs is not None and outputs is not None else None,
        (("cached_tokens", read), ("cache_creation_tokens", written)),
        (("reasoning_tokens", details.get("thinking_tokens")),) if isinstance(details, dict) else (),
    )


_SILENT = frozenset(("ping", "content_block_stop"))  # events that say nothing of the answer


class _AnthropicStream(StreamReader):
    def __init__(self, lm: LM) -> None:
        super().__init__(lm)
        self._started: dict[str, Any] = {}

    def _data(self, payload: dict[str, Any]) -> None:
        kind = payload.get("type")
        index = int(payload.get("index", 0) or 0)
        if kind == "message_start":
            message = payload.get("message") or {}
            self.model = str(message.get("model") or self.model)
            self._started = as_object(message.get("usage"))
            self.usage = usage(self._started)  # of a stream that is closed early, this much is known
        elif kind == "content_block_start":
            block = payload.get("content_block") or {}
            if block.get("type") == "tool_use":
                given = block.get("input")
                start = None if given in (None, {}) else json.dumps(given)  # {}: it comes in deltas
                self._fragment(index, block.get("id"), block.get("name"), start)
        elif kind == "content_block_delta":
            self._delta(index, payload.get("delta") or {})
        elif kind == "message_delta":
            delta = as_object(payload.get("delta"))
            if (reason := delta.get("stop_reason")) is not None:
                self._finished(_finish(reason))
                self.refusal += [said] if (said := _explanation(delta)) else []
            self.usage = usage({**self._started, **(payload.get("usage") or {})})
        elif kind == "message_stop":
            self.ended = True
        elif kind not in _SILENT and (complaint := complaint_in(payload)):
            raise self._failed(complaint)

    def _delta(self, index: int, delta: dict[str, Any]) -> None:
        kind = delta.get("type")
        if kind == "text_delta" and delta.get("text"):
            self.text.append(str(delta["text"]))
        elif kind == "thinking_delta":
            self.reasoning.append(str(delta.get("thinking") or ""))
        elif kind == "input_json_delta":
            self._fragment(index, None, None, delta.get("partial_json"))


def _finish(reason: Any) -> str:
    reason = str(reason or "").lower()
    if reason in ("max_tokens", "model_context_window_exceeded"):
        return "length"
    if reason in ("tool_use", "pause_turn"):
        return "tool_call"
    if reason in ("refusal", "safety", "content_filter"):
        return "content_filter"
    return "stop" if reason in ("", "end_turn", "stop_sequence", "stop") else reason


def _explanation(data: Mapping[str, Any]) -> str:
    """Return what is said of a refusal, where the API says anything."""
    details = as_object(data.get("stop_details"))
    return str(details.get("explanation") or details.get("category") or "")


def _request_id(body: bytes) -> Any:
    return as_object(json_in(body[:_REFUSAL_MOST])).get("request_id")
