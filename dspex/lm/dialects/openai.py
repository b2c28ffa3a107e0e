"""Speak OpenAI's Chat Completions dialect, with the deviations of each `Provider`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...errors import LMError, LMUnexpectedError, LMUnsupportedFeatureError
from .answer import Answer, Details, arguments_of, count, counters, no_answer, refused, tool_call
from .asked_body import names_another as names_another
from .asked_body import streams as streams
from .error_envelopes import complaint_in, fault_in, fault_of
from .json_body import as_object, decode
from .openai_request import body as body
from .stream_reader import StreamReader

if TYPE_CHECKING:
    from ..record import LM

_FINISH = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_call",
    "function_call": "tool_call",
    "content_filter": "content_filter",
}
# Details of the token counters: DSPy's name, and the API's.
_PROMPT = {
    "cached_tokens": "cached_tokens",
    "cache_creation_tokens": "cache_write_tokens",
    "audio_tokens": "audio_tokens",
}
_COMPLETION = {"reasoning_tokens": "reasoning_tokens", "audio_tokens": "audio_tokens"}


def endpoint(lm: LM) -> str:
    """Return the URL of a completion."""
    return f"{lm.api_base}/chat/completions"


def owns(lm: LM, url: str) -> bool:
    """Return whether the URL is a completion of the LM's model."""
    return url == endpoint(lm)


def reporting(asked: dict[str, Any]) -> dict[str, Any]:
    """Return a worker's request, asking for what it uses to be reported: of a stream, servers say it only then."""
    options = as_object(asked.get("stream_options"))
    if not asked.get("stream") or options.get("include_usage") is True:
        return asked
    return {**asked, "stream_options": {**options, "include_usage": True}}


def answer(lm: LM, body: bytes) -> Answer:
    """Return a 2xx response's body, read.

    Raises:
        LMError: the body holds an error, several choices, or no JSON object.
    """
    data = decode(lm, body)
    if fault := fault_in(data):
        raise fault.error(lm)
    choices = data.get("choices")
    if not choices:
        raise no_answer(lm, data)
    if len(choices) > 1:
        raise LMUnsupportedFeatureError(f"The reply carries {len(choices)} choices, not one.", model=lm.model)
    choice = as_object(choices[0])
    message = as_object(choice.get("message"))
    called, thought = message.get("tool_calls"), message.get("reasoning_content") or message.get("reasoning")
    calls = _calls(lm, message) if called else []
    text, finish = _text(message, calls), _finish(choice.get("finish_reason"))
    if not (text or calls) and (message.get("refusal") or finish == "content_filter"):
        raise refused(lm, str(message.get("refusal") or ""))
    return Answer(
        text=text,
        model=str(data.get("model") or lm.name),
        finish_reason="tool_call" if calls else finish,
        usage=usage(data.get("usage")),
        tool_calls=calls,
        reasoning=str(thought) if thought else None,
        logprobs=_logprobs(choice) if choice.get("logprobs") else None,
    )


def repaired(lm: LM, body: bytes) -> bytes:
    """Return the body with tool arguments that are neither text nor an object as text: DSPy's reader empties them."""
    if b'"tool_calls"' not in body:
        return body
    data = decode(lm, body)
    calls = as_object(as_object(data["choices"][0]).get("message")).get("tool_calls")
    functions = [call.get("function") for call in calls or () if isinstance(call, dict)]
    odd = [f for f in functions if isinstance(f, dict) and not isinstance(f.get("arguments"), str | dict | None)]
    for function in odd:
        function["arguments"] = json.dumps(function["arguments"])
    return json.dumps(data).encode() if odd else body  # ASCII: a reply may hold half a surrogate pair


def reader(lm: LM) -> StreamReader:
    """Return a reader for a streamed response."""
    return _OpenAIStream(lm)


def failure(lm: LM, status: int, body: bytes) -> LMError:
    """Return the error that a response of 300 and more stands for."""
    return fault_of(body).error(lm, status=status)


def usage_in(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the counters that a response or an event holds."""
    return usage(data.get("usage"))


def usage(data: Any) -> dict[str, Any]:
    """Return the counters of a response in DSPy's shape."""
    if not isinstance(data, dict):
        return {}
    inputs, outputs = count(data.get("prompt_tokens")), count(data.get("completion_tokens"))
    total = count(data.get("total_tokens"))
    if total is None and inputs is not None and outputs is not None:
        total = inputs + outputs
    prompt, completion = data.get("prompt_tokens_details"), data.get("completion_tokens_details")
    return counters(inputs, outputs, total, _details(prompt, _PROMPT), _details(completion, _COMPLETION))


def _details(given: Any, names: Mapping[str, str]) -> Details:
    return [(name, given.get(key)) for name, key in names.items()] if isinstance(given, dict) else ()


def _logprobs(choice: Mapping[str, Any]) -> list[Any] | None:
    found = as_object(choice.get("logprobs")).get("content")
    return found if isinstance(found, list) else None


class _OpenAIStream(StreamReader):
    def _data(self, payload: dict[str, Any]) -> None:
        self.model = str(payload.get("model") or self.model)
        choices = payload.get("choices")
        if not choices and (complaint := complaint_in(payload)):
            raise complaint.error(self.lm)
        choice = as_object((choices or [{}])[0])
        self._delta(as_object(choice.get("delta")))
        if choice.get("logprobs") and (found := _logprobs(choice)):
            self.logprobs += found
        if choice.get("finish_reason"):
            self._finished(_finish(choice["finish_reason"]))
        if isinstance(payload.get("usage"), dict):  # some servers send it with each event: it ends nothing
            self.usage = usage(payload["usage"]) or self.usage

    def _delta(self, delta: dict[str, Any]) -> None:
        if thought := delta.get("reasoning_content") or delta.get("reasoning"):
            self.reasoning.append(str(thought))
        if isinstance(delta.get("content"), str) and delta["content"]:
            self.text.append(delta["content"])
        if isinstance(delta.get("refusal"), str):
            self.refusal.append(delta["refusal"])
        for call in delta.get("tool_calls") or ():
            if isinstance(call, dict):
                function = as_object(call.get("function"))
                self._fragment(call.get("index"), call.get("id"), function.get("name"), function.get("arguments"))


def _finish(reason: Any) -> str:
    """Return DSPy's word for the API's reason; one that DSPy has no word for, as it is."""
    said = str(reason or "stop")
    return _FINISH.get(said, said)


def _text(message: Mapping[str, Any], calls: list[dict[str, Any]]) -> str | None:
    content = message.get("content")
    if content and isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [str(b.get("text") or "") for b in content if isinstance(b, dict) and b.get("type") == "text"]
        if joined := "".join(texts):
            return joined
    alone = not calls and not message.get("refusal")
    return "" if alone and not (message.get("reasoning_content") or message.get("reasoning")) else None


def _calls(lm: LM, message: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for call in message["tool_calls"]:
        if not isinstance(call, dict) or (call.get("type") or "function") != "function":
            continue
        function = as_object(call.get("function"))
        if not function.get("name"):
            raise LMUnexpectedError("The reply holds a tool call without a name.", model=lm.model)
        id = str(call.get("id") or f"call_{_parts_before_calls(message) + len(found)}")
        found.append(tool_call(lm, id, str(function["name"]), arguments_of(function.get("arguments"))))
    return found


def _parts_before_calls(message: Mapping[str, Any]) -> int:
    """Return how many parts DSPy counts before the tool calls: it numbers those that come without an id by them."""
    content = message.get("content")
    if isinstance(content, list):
        texts = len([block for block in content if isinstance(block, dict) and block.get("type") == "text"])
    else:
        texts = int(isinstance(content, str) and bool(content))
    is_thought = bool(message.get("reasoning_content") or message.get("reasoning"))
    return texts + is_thought + bool(message.get("refusal"))
