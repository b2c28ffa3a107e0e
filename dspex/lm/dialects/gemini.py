"""Read Gemini's dialect: URLs, answers and usage. Its requests are written by DSPy's library (`lm15_dialect`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import LMUnexpectedError, LMUnsupportedFeatureError
from . import openai
from .answer import Answer, arguments_of, count, counters, no_answer, refused, tool_call
from .dialect import Message
from .error_envelopes import fault_in
from .json_body import as_object, decode
from .stream_reader import StreamReader

if TYPE_CHECKING:
    from ..record import LM

_FILTERED = frozenset({"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII"})
failure = openai.failure  # OpenAI's rules suffice for what is passed on


def endpoint(lm: LM) -> str:
    """Return the URL of a completion."""
    return f"{lm.api_base}/models/{lm.name.removeprefix('models/')}:generateContent"


def owns(lm: LM, url: str) -> bool:
    """Return whether the URL is a completion of the LM's model."""
    whole = endpoint(lm)
    streamed = whole.removesuffix("generateContent") + "streamGenerateContent"
    return url in (whole, streamed, f"{streamed}?alt=sse")


def streams(url: str, asked: Mapping[str, Any]) -> bool:
    """Return whether a request asks for a stream."""
    return ":streamGenerateContent" in url


def names_another(lm: LM, asked: Mapping[str, Any]) -> bool:
    """Return whether a request's body names another model than the record; here the URL names it."""
    return asked.get("model") not in (None, lm.name, f"models/{lm.name}")


def reporting(asked: dict[str, Any]) -> dict[str, Any]:
    """Return a worker's request as it is: what is used is always reported."""
    return asked


def body(lm: LM, messages: Sequence[Message], given: Mapping[str, Any], stream: bool) -> bytes:
    """Refuse: `lm15_dialect` writes this dialect.

    Raises:
        LMUnsupportedFeatureError: always.
    """
    raise LMUnsupportedFeatureError("Requests to Gemini's models are written by DSPy's library.", model=lm.model)


def answer(lm: LM, body: bytes) -> Answer:
    """Return a 2xx response's body, read.

    Raises:
        LMError: the body is no answer.
    """
    data = decode(lm, body)
    if fault := fault_in(data):
        raise fault.error(lm)
    if not isinstance(data.get("candidates"), list) and not data.get("promptFeedback"):
        raise no_answer(lm, data)
    candidates = [as_object(each) for each in data.get("candidates") or ()]
    parts, reason = _parts(candidates[0]) if candidates else [], _finish_of(candidates)
    said = any(map(_says_something, parts))
    if blocked := _blocked(data) or ("" if said or reason != "content_filter" else _why(candidates[0])):
        raise refused(lm, blocked)
    texts = [_text(part) for part in parts if "text" in part and not part.get("thought")]
    thoughts = [_text(part) for part in parts if "text" in part and part.get("thought")]
    calls = [_call(lm, part, at) for at, part in enumerate(parts) if isinstance(part.get("functionCall"), dict)]
    return Answer(
        text="".join(texts) if texts or not (thoughts or calls) else None,
        model=lm.name,
        finish_reason="tool_call" if calls else reason,
        usage=usage_in(data),
        tool_calls=calls,
        reasoning="".join(thoughts) or None,
    )


def repaired(lm: LM, body: bytes) -> bytes:
    """Return the body as it came: arguments are objects in this dialect."""
    return body


def reader(lm: LM) -> StreamReader:
    """Return a reader for a streamed response."""
    return _GeminiStream(lm)


def usage_in(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the counters of a response or an event in DSPy's shape."""
    reported = as_object(data.get("usageMetadata"))
    inputs, thought = count(reported.get("promptTokenCount")), count(reported.get("thoughtsTokenCount"))
    outputs = count(reported.get("candidatesTokenCount"))
    if outputs is not None or thought is not None:
        outputs = (outputs or 0) + (thought or 0)
    return counters(
        inputs,
        outputs,
        count(reported.get("totalTokenCount")),
        (("cached_tokens", reported.get("cachedContentTokenCount")),),
        (("reasoning_tokens", thought),),
    )


def _blocked(data: Mapping[str, Any]) -> str:
    """Return why a prompt was not answered at all; "" if it was."""
    feedback = as_object(data.get("promptFeedback"))
    reason = feedback.get("blockReason")
    return str(feedback.get("blockReasonMessage") or reason) if reason else ""


def _parts(candidate: Mapping[str, Any]) -> list[dict[str, Any]]:
    parts = as_object(candidate.get("content")).get("parts")
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def _text(part: Mapping[str, Any]) -> str:
    return str(part.get("text") or "")


def _says_something(part: Mapping[str, Any]) -> bool:
    return bool(_text(part)) or not set(part) <= {"text", "thought", "thoughtSignature"}


def _call(lm: LM, part: Mapping[str, Any], index: int) -> dict[str, Any]:
    called = part["functionCall"]
    if not called.get("name"):
        raise LMUnexpectedError("The reply holds a tool call without a name.", model=lm.model)
    arguments = arguments_of(called.get("args"))
    return tool_call(lm, str(called.get("id") or f"tool_call_{index}"), str(called["name"]), arguments)


def _finish_of(candidates: Sequence[Mapping[str, Any]]) -> str:
    return _finish(candidates[0].get("finishReason")) if candidates else "stop"


def _finish(reason: Any) -> str:
    """Return DSPy's word for the API's reason (lm15, providers/gemini.py)."""
    said = str(reason or "").upper()
    if said == "MAX_TOKENS":
        return "length"
    return "content_filter" if said in _FILTERED else "stop"


def _why(candidate: Mapping[str, Any]) -> str:
    return str(candidate.get("finishMessage") or candidate.get("finishReason"))


class _GeminiStream(StreamReader):
    def _data(self, payload: dict[str, Any]) -> None:
        self.usage = usage_in(payload) or self.usage
        if as_object(payload.get("promptFeedback")).get("blockReason"):
            self._finished("content_filter")
            self.refusal.append(_blocked(payload))
        candidates = payload.get("candidates")
        if isinstance(candidates, list) and candidates:
            self._candidate(as_object(candidates[0]))

    def _candidate(self, candidate: dict[str, Any]) -> None:
        for part in _parts(candidate):
            if isinstance(called := part.get("functionCall"), dict):  # each is whole: calls do not come in pieces
                given = called.get("args")
                arguments = None if given is None else json.dumps(given)
                self._fragment(len(self.calls), called.get("id"), called.get("name"), arguments)
            elif (text := _text(part)) and part.get("thought"):
                self.reasoning.append(text)
            elif text:
                self.text.append(text)
        if candidate.get("finishReason"):
            self._finished(_finish(candidate["finishReason"]))
            if self.finish_reason == "content_filter":
                self.refusal.append(_why(candidate))
