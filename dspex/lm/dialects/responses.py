"""Speak OpenAI's Responses dialect."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ...errors import LMError, LMUnexpectedError
from .answer import Answer, arguments_of, count, counters, no_answer, refused, tool_call
from .asked_body import names_another as names_another
from .asked_body import streams as streams
from .error_envelopes import fault_in, fault_of, text_fault
from .json_body import as_object, decode, encode
from .responses_request import body as body
from .stream_reader import StreamReader

if TYPE_CHECKING:
    from ..record import LM

_TEXTS = frozenset({"output_text", "text"})
_THOUGHTS = frozenset({"response.reasoning_summary_text.delta", "response.reasoning_text.delta"})
_LAST = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})
_NO_ANSWER = frozenset({"failed", "cancelled"})  # statuses


def endpoint(lm: LM) -> str:
    """Return the URL of an answer."""
    return f"{lm.api_base}/responses"


def owns(lm: LM, url: str) -> bool:
    """Return whether the URL is an answer of the LM's model."""
    return url == endpoint(lm)


def reporting(asked: dict[str, Any]) -> dict[str, Any]:
    """Return a worker's request as it is: what is used is always reported."""
    return asked


def answer(lm: LM, body: bytes) -> Answer:
    """Return a 2xx response's body, read.

    Raises:
        LMError: the body holds an error, or no answer.
    """
    data = decode(lm, body)
    if fault := fault_in(data):
        raise fault.error(lm)
    if data.get("status") in _NO_ANSWER:
        raise _broken_off(lm, data)
    if not isinstance(data.get("output"), list) and data.get("object") != "response":
        raise no_answer(lm, data)
    texts: list[str] = []
    refusals: list[str] = []
    logprobs: list[Any] = []
    for part in _parts(data):
        if part.get("type") in _TEXTS:
            texts.append(str(part.get("text") or ""))
            logprobs += part["logprobs"] if isinstance(part.get("logprobs"), list) else ()
        elif part.get("type") == "refusal":
            refusals.append(str(part.get("refusal") or part.get("text") or ""))
    calls = [_call(lm, item, at) for at, item in enumerate(_items(data, "function_call"))]
    thoughts = list(filter(None, map(_thought, _items(data, "reasoning"))))
    finish = _finish(data, bool(calls))
    if not (any(texts) or calls) and (any(refusals) or finish == "content_filter"):
        raise refused(lm, "".join(refusals))
    empty = not (texts or thoughts or calls or refusals)
    return Answer(
        text="".join(texts) if texts else str(data.get("output_text") or "") if empty else None,
        model=str(data.get("model") or lm.name),
        finish_reason=finish,
        usage=usage(data.get("usage")),
        tool_calls=calls,
        reasoning="".join(thoughts) or None,
        logprobs=logprobs or None,
    )


def repaired(lm: LM, body: bytes) -> bytes:
    """Return the body with tool arguments that are neither text nor an object as text: DSPy's reader empties them."""
    if b'"function_call"' not in body:
        return body
    data = decode(lm, body)
    odd = [item for item in _items(data, "function_call") if not isinstance(item.get("arguments"), str | dict | None)]
    for item in odd:
        item["arguments"] = json.dumps(item["arguments"])
    return encode(data) if odd else body


def reader(lm: LM) -> StreamReader:
    """Return a reader for a streamed response."""
    return _ResponsesStream(lm)


def failure(lm: LM, status: int, body: bytes) -> LMError:
    """Return the error that a response of 300 and more stands for."""
    return fault_of(body).error(lm, status=status)


def usage_in(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the counters that a response or an event holds."""
    return usage(data.get("usage") or as_object(data.get("response")).get("usage"))


def usage(data: Any) -> dict[str, Any]:
    """Return the counters of a response in DSPy's shape."""
    if not isinstance(data, dict):
        return {}
    inputs, outputs = count(data.get("input_tokens")), count(data.get("output_tokens"))
    total = count(data.get("total_tokens"))
    if total is None and inputs is not None and outputs is not None:
        total = inputs + outputs
    read, written = as_object(data.get("input_tokens_details")), as_object(data.get("output_tokens_details"))
    return counters(
        inputs,
        outputs,
        total,
        (
            ("cached_tokens", read.get("cached_tokens")),
            ("cache_creation_tokens", read.get("cache_write_tokens")),
            ("audio_tokens", read.get("audio_tokens")),
        ),
        (("reasoning_tokens", written.get("reasoning_tokens")), ("audio_tokens", written.get("audio_tokens"))),
    )


class _ResponsesStream(StreamReader):
    def _data(self, payload: dict[str, Any]) -> None:
        kind, response = str(payload.get("type") or ""), as_object(payload.get("response"))
        self.model = str(response.get("model") or self.model)
        if kind == "response.output_text.delta":
            self.text += [said] if (said := str(payload.get("delta") or "")) else []
            self.logprobs += payload["logprobs"] if isinstance(payload.get("logprobs"), list) else ()
        elif kind == "response.refusal.delta":
            self.refusal.append(str(payload.get("delta") or ""))
        elif kind in _THOUGHTS:
            self.reasoning.append(str(payload.get("delta") or ""))
        elif kind == "response.output_item.added":
            item = as_object(payload.get("item"))
            if item.get("type") == "function_call":
                id = item.get("call_id") or item.get("id")
                self._fragment(payload.get("output_index"), id, item.get("name"), item.get("arguments"))
        elif kind == "response.function_call_arguments.delta":
            self._fragment(payload.get("output_index"), None, None, payload.get("delta"))
        elif kind in _LAST:
            self._end(kind, response)

    def _end(self, kind: str, response: dict[str, Any]) -> None:
        self.usage = usage(response.get("usage")) or self.usage
        if fault := fault_in(response):
            raise self._failed(fault)
        if kind.endswith(tuple(_NO_ANSWER)):
            raise _broken_off(self.lm, response)
        self._finished(_finish(response, bool(self.calls)))


def _items(data: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    found = data.get("output")
    return [item for item in found if isinstance(item, dict) and item.get("type") == kind] if found else []


def _parts(data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the parts of the messages among the output's items."""
    for item in _items(data, "message"):
        content = item.get("content")
        yield from (part for part in content if isinstance(part, dict)) if isinstance(content, list) else ()


def _call(lm: LM, item: Mapping[str, Any], at: int) -> dict[str, Any]:
    if not item.get("name"):
        raise LMUnexpectedError("The reply holds a tool call without a name.", model=lm.model)
    id = str(item.get("call_id") or item.get("id") or f"call_{at}")
    return tool_call(lm, id, str(item["name"]), arguments_of(item.get("arguments")))


def _thought(item: Mapping[str, Any]) -> str:
    """Return what is shown of a reasoning: its summary's paragraphs."""
    summary = item.get("summary")
    if isinstance(summary, list):
        return "\n".join(str(part.get("text") or "") if isinstance(part, dict) else str(part) for part in summary)
    return str(summary or item.get("text") or "")


def _finish(data: Mapping[str, Any], has_calls: bool) -> str:
    """Return DSPy's word for why the answer ended."""
    if has_calls:
        return "tool_call"
    reason = str(as_object(data.get("incomplete_details")).get("reason") or "").lower()
    if str(data.get("status") or "").lower() == "incomplete" and "token" in reason:
        return "length"
    return "content_filter" if "content_filter" in reason or "safety" in reason else "stop"


def _broken_off(lm: LM, data: Mapping[str, Any]) -> LMError:
    return text_fault(f"The provider broke the answer off ({str(data.get('status') or 'failed')[:100]}).").error(lm)
