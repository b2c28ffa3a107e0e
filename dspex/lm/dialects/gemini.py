"""Read Gemini's dialect: URLs, answers and usage. Its requests are written by DSPy's library (`lm15_dialect`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from ...errors import LMInvalidRequestError, LMUnexpectedError, LMUnsupportedFeatureError
from . import openai
from .answer import Answer, arguments_of, count, counters, no_answer, refused, tool_call
from .dialect import Message
from .error_classes import failure as failed
from .error_envelopes import fault_in
from .json_body import as_object, decode
from .stream_reader import StreamReader

if TYPE_CHECKING:
    from ..record import LM

_FILTERED = frozenset(
    """SAFETY RECITATION BLOCKLIST PROHIBITED_CONTENT SPII IMAGE_SAFETY IMAGE_PROHIBITED_CONTENT
    IMAGE_RECITATION""".split()
)
_FAILED = frozenset(
    """LANGUAGE MALFORMED_FUNCTION_CALL MALFORMED_RESPONSE UNEXPECTED_TOOL_CALL TOO_MANY_TOOL_CALLS
    MISSING_THOUGHT_SIGNATURE IMAGE_OTHER NO_IMAGE""".split()
)  # for these DSPy takes no answer either, whatever stands beside them
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
    if blocked := _blocked(data):
        raise refused(lm, blocked)
    candidate = candidates[0] if candidates else {}
    reason, parts = _finish(lm, candidate), _parts(candidate)
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
        logprobs=_logprobs(candidate),
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
    is_blocked = bool(reason) and reason != "BLOCK_REASON_UNSPECIFIED"
    return str(feedback.get("blockReasonMessage") or reason) if is_blocked else ""


def _parts(candidate: Mapping[str, Any]) -> list[dict[str, Any]]:
    parts = as_object(candidate.get("content")).get("parts")
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def _text(part: Mapping[str, Any]) -> str:
    return str(part.get("text") or "")


def _call(lm: LM, part: Mapping[str, Any], index: int) -> dict[str, Any]:
    called = part["functionCall"]
    if not called.get("name"):
        raise LMUnexpectedError("The reply holds a tool call without a name.", model=lm.model)
    arguments = arguments_of(called.get("args"))
    return tool_call(lm, str(called.get("id") or f"tool_call_{index}"), str(called["name"]), arguments)


def _logprobs(candidate: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the tokens as OpenAI's API lists them; the alternatives to each stand in a list of their own."""
    result = as_object(candidate.get("logprobsResult"))
    chosen, steps = result.get("chosenCandidates"), result.get("topCandidates")
    if not isinstance(chosen, list):
        return None
    others = [as_object(step).get("candidates") for step in steps] if isinstance(steps, list) else []
    return [
        {**_token(each), "top_logprobs": [_token(one) for one in other or () if isinstance(one, dict)]}
        for each, other in zip_longest(chosen, others[: len(chosen)])
        if isinstance(each, dict)
    ]


def _token(candidate: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": candidate.get("token") or "", "logprob": candidate.get("logProbability") or 0.0}


def _finish(lm: LM, candidate: Mapping[str, Any]) -> str:
    """Return DSPy's word for the API's reason (lm15, providers/gemini.py), or raise the error that the reason is."""
    reason = str(candidate.get("finishReason") or "").upper()
    why = str(candidate.get("finishMessage") or reason)
    if reason in _FILTERED:
        raise refused(lm, why)
    if reason in _FAILED:
        raise failed(lm, LMInvalidRequestError, why, code=reason, status=200)
    return "length" if reason == "MAX_TOKENS" else "stop"


class _GeminiStream(StreamReader):
    def _data(self, payload: dict[str, Any]) -> None:
        self.usage = usage_in(payload) or self.usage
        if blocked := _blocked(payload):
            raise refused(self.lm, blocked)
        candidates = payload.get("candidates")
        if isinstance(candidates, list) and candidates:
            self._candidate(as_object(candidates[0]))

    def _candidate(self, candidate: dict[str, Any]) -> None:
        parts = _parts(candidate)
        if "logprobsResult" in candidate and any("text" in part and not part.get("thought") for part in parts):
            self.logprobs += _logprobs(candidate) or ()
        for part in parts:
            if isinstance(called := part.get("functionCall"), dict):  # each is whole: calls do not come in pieces
                given = called.get("args")
                arguments = None if given is None else json.dumps(given)
                self._fragment(len(self.calls), called.get("id"), called.get("name"), arguments)
            elif (text := _text(part)) and part.get("thought"):
                self.reasoning.append(text)
            elif text:
                self.text.append(text)
        if candidate.get("finishReason"):
            self._finished(_finish(self.lm, candidate))
