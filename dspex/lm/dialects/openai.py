"""OpenAI's Chat Completions dialect, and the servers that speak it with deviations (`Provider` says which)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import (
    InvalidInput,
    LMAuthError,
    LMBillingError,
    LMContextWindowExceededError,
    LMError,
    LMProviderError,
    LMRateLimitError,
    LMUnexpectedError,
    LMUnsupportedFeatureError,
    LMUnsupportedModelError,
)
from . import error_classes, request_options
from .answer import Answer, Details, arguments_of, count, counters, no_answer, tool_call
from .dialect import Message
from .error_envelopes import complaint_in, fault_in
from .json_body import as_object, decode, encode, encode_chat, json_text, quoted, quoted_once
from .stream_reader import StreamReader

if TYPE_CHECKING:
    from ..record import LM

_PLAIN_ROLES = frozenset({"system", "user", "assistant"})
_ASKING_ROLES = frozenset({"system", "user"})
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
_PASSED_ON = ("logit_bias", "metadata", "verbosity", "moderation", "provider", "prediction")


def endpoint(lm: LM) -> str:
    """The URL of a completion."""
    return f"{lm.api_base}/chat/completions"


def owns(lm: LM, url: str) -> bool:
    """Whether the URL is a completion of the LM's model."""
    return url == endpoint(lm)


def streams(url: str, asked: Mapping[str, Any]) -> bool:
    """Whether a request asks for a stream."""
    return bool(asked.get("stream"))


def names_another(lm: LM, asked: Mapping[str, Any]) -> bool:
    """Whether a request's body names another model than the record."""
    return asked.get("model") != lm.name


def body(lm: LM, messages: Sequence[Message], given: Mapping[str, Any], stream: bool) -> bytes:
    """The request's body.

    Raises:
        InvalidInput: messages or options that are malformed.
        LMUnsupportedFeatureError: a content block or option that this dialect cannot carry.
    """
    rest: dict[str, Any] = {}
    if stream:
        rest["stream"] = True
        rest["stream_options"] = {"include_usage": True}
    if given:
        request_options.check(lm, given)
        _sampling(lm, given, rest)
        _tools(lm, given, rest)
        _reasoning(lm, given, rest)
        _account(lm, given, rest)
    return encode_chat(lm.name, _rows(lm, messages), rest)


def answer(lm: LM, body: bytes) -> Answer:
    """A 2xx response's body, read.

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
    calls = _calls(lm, called) if called else []
    finish = choice.get("finish_reason")
    return Answer(
        text=_text(message, calls),
        model=str(data.get("model") or lm.name),
        finish_reason="tool_call" if calls else _FINISH.get(str(finish or "stop"), "stop"),
        usage=usage(data.get("usage")),
        tool_calls=calls,
        reasoning=str(thought) if thought else None,
    )


def mended(lm: LM, body: bytes) -> bytes:
    """The body with tool arguments that are neither text nor an object as text: DSPy's reader would empty them."""
    if b'"tool_calls"' not in body:
        return body
    data = decode(lm, body)
    calls = as_object(as_object(data["choices"][0]).get("message")).get("tool_calls")
    functions = [call.get("function") for call in calls or () if isinstance(call, dict)]
    odd = [f for f in functions if isinstance(f, dict) and not isinstance(f.get("arguments"), str | dict | None)]
    for function in odd:
        function["arguments"] = json.dumps(function["arguments"])
    return encode(data) if odd else body


def reader(lm: LM) -> StreamReader:
    """A reader for a streamed response."""
    return _OpenAIStream(lm)


def failure(lm: LM, status: int, body: bytes) -> LMError:
    """The error that a response of 400 and more stands for."""
    found = error_classes.envelope(body)
    if found is None:
        return error_classes.failure(
            lm, error_classes.class_of_status(status), error_classes.plain_text(body), status=status
        )
    data, error = found
    inner = error if isinstance(error, dict) else {}
    message = str(inner.get("message") or "") if inner else str(error or "" if "error" in data else "")
    code, kind = str(inner.get("code") or ""), str(inner.get("type") or "")
    return error_classes.failure(
        lm, _class(status, message, code, kind), message, status=status, code=code or kind or None
    )


def usage_in(data: Mapping[str, Any]) -> dict[str, Any]:
    """The counters that a response or an event holds."""
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


class _OpenAIStream(StreamReader):
    def _data(self, payload: dict[str, Any]) -> None:
        self.model = str(payload.get("model") or self.model)
        choices = payload.get("choices")
        if not choices and not payload.get("usage") and (complaint := complaint_in(payload)):
            raise complaint.error(self.lm)
        choice = as_object((choices or [{}])[0])
        self._delta(as_object(choice.get("delta")))
        if choice.get("finish_reason"):
            self._finished(_FINISH.get(str(choice["finish_reason"]), "stop"))
        if isinstance(payload.get("usage"), dict):  # some servers send it with each event: it ends nothing
            self.usage = usage(payload["usage"])

    def _delta(self, delta: dict[str, Any]) -> None:
        if thought := delta.get("reasoning_content") or delta.get("reasoning"):
            self.reasoning.append(str(thought))
        if isinstance(delta.get("content"), str) and delta["content"]:
            self.text.append(delta["content"])
        for call in delta.get("tool_calls") or ():
            if isinstance(call, dict):
                function = as_object(call.get("function"))
                index = int(call.get("index", 0) or 0)
                self._fragment(index, call.get("id"), function.get("name"), str(function.get("arguments") or ""))


def _rows(lm: LM, messages: Sequence[Message]) -> list[str]:
    """The messages as DSPy's engine would write them, each as JSON."""
    written: list[str] = []
    plain = _ASKING_ROLES if lm.provider.blank_reasoning else _PLAIN_ROLES
    for index, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if content and isinstance(content, str) and role in plain and len(message) == 2:
            text = quoted_once(content) if role == "system" else quoted(content)
            written.append(f'{{"role":"{role}","content":{text}}}')
        elif (row := _row(lm, message, index)) is not None:
            written.append(json_text(row))
    return written


def _row(lm: LM, message: Message, index: int) -> dict[str, Any] | None:
    role, content = message.get("role"), message.get("content")
    if role in ("system", "developer"):
        if index:
            return {"role": "system", "content": _blocks(lm, content, media=False)}
        return {"role": "system", "content": request_options.filled(lm, _joined(lm, content))}
    if role == "user":
        blocks = _blocks(lm, content, media=True)
        return {"role": "user", "content": blocks} if blocks or blocks == "" else None
    if role == "assistant":
        return _assistant(lm, message)
    if role == "tool":
        if not isinstance(message.get("tool_call_id"), str):
            raise InvalidInput("A tool message needs its tool_call_id.")
        return {"role": "tool", "tool_call_id": message["tool_call_id"], "content": _joined(lm, content)}
    raise InvalidInput(f"A message's role must be system, user, assistant or tool, not {role!r}.")


def _assistant(lm: LM, message: Message) -> dict[str, Any]:
    provider, content = lm.provider, message.get("content")
    thought = message.get("reasoning_content")
    bits = [thought] if thought and not provider.replays_reasoning else []
    if isinstance(content, str):
        bits.append(content)
    elif content is not None:
        bits += [str(block.get("text") or block.get("refusal") or "") for block in content]
    if message.get("refusal"):
        bits.append(message["refusal"])
    calls = message.get("tool_calls")
    if not bits and not calls and not thought:
        bits = [""]
    row: dict[str, Any] = {"role": "assistant", "content": "\n".join(bits) if bits else None}
    if provider.replays_reasoning and (thought or provider.blank_reasoning):
        row["reasoning_content"] = thought or ""
    if calls:
        row["tool_calls"] = [_replayed(call) for call in calls]
    return row


def _replayed(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = function.get("arguments", "{}")
    try:
        parsed = json.loads(arguments or "{}") if isinstance(arguments, str) else arguments
    except ValueError:
        raise InvalidInput("A tool call's arguments are not JSON.") from None
    text = json.dumps(parsed, separators=(",", ":"))
    return {"id": call["id"], "type": "function", "function": {"name": function["name"], "arguments": text}}


def _joined(lm: LM, content: Any) -> str:
    """Content for a field that takes text only."""
    if isinstance(content, str):
        return content
    texts = []
    for block in content or ():
        if block.get("type") != "text":
            raise _unsupported(lm, block)
        texts.append(block["text"])
    return "\n".join(texts)


def _blocks(lm: LM, content: Any, *, media: bool) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    if not isinstance(content, list | tuple):
        raise InvalidInput("A message's content must be text or a list of content blocks.")
    found: list[dict[str, Any]] = []
    for block in content:
        kind = block.get("type")
        if kind == "text":
            found.append({"type": "text", "text": block["text"]})
        elif kind == "image_url" and media:
            image = block["image_url"]
            shown = {"url": image["url"], **({"detail": image["detail"]} if image.get("detail") else {})}
            found.append({"type": "image_url", "image_url": shown})
        else:
            raise _unsupported(lm, block)
    return found[0]["text"] if len(found) == 1 and found[0]["type"] == "text" else found


def _unsupported(lm: LM, block: Mapping[str, Any]) -> LMUnsupportedFeatureError:
    kind = block.get("type")
    return LMUnsupportedFeatureError(
        f"A content block of type {kind!r} cannot be sent there.", model=lm.model, provider=lm.provider.id
    )


def _sampling(lm: LM, given: Mapping[str, Any], payload: dict[str, Any]) -> None:
    limit = request_options.max_tokens(lm, given)
    if limit is not None:
        payload[lm.provider.max_tokens_field] = limit
    for name in ("temperature", "top_p"):
        value = request_options.number(given, name)
        if value is not None:
            payload[name] = value
    if given.get("seed") is not None:
        payload["seed"] = int(given["seed"])
    for name in ("frequency_penalty", "presence_penalty"):
        value = request_options.number(given, name)
        if value is not None:
            payload[name] = value
    if stop := request_options.stops(given):
        payload["stop"] = stop
    if given.get("logprobs"):
        payload["logprobs"] = True
        if given.get("top_logprobs"):
            payload["top_logprobs"] = int(given["top_logprobs"])


def _tools(lm: LM, given: Mapping[str, Any], payload: dict[str, Any]) -> None:
    tools = request_options.function_tools(lm, given.get("tools"))
    if tools:
        payload["tools"] = [{"type": "function", "function": tool} for tool in tools]
    choice, parallel = request_options.tool_choice(given.get("tool_choice")), given.get("parallel_tool_calls")
    if choice is not None or parallel is not None:
        mode, name = choice or ("auto", None)
        payload["tool_choice"] = {"type": "function", "function": {"name": name}} if name else mode
    if parallel is not None:
        payload["parallel_tool_calls"] = bool(parallel)
    schema = request_options.schema_of(lm, given.get("response_format"))
    if schema is not None:
        kind = schema.pop("type")
        payload["response_format"] = {"type": kind, "json_schema": schema} if schema else {"type": kind}


def _reasoning(lm: LM, given: Mapping[str, Any], payload: dict[str, Any]) -> None:
    effort = request_options.effort(lm.provider, given.get("reasoning_effort"))
    if effort is None:
        return
    form, off = lm.provider.reasoning, effort == "none"
    if form == "openrouter":
        raise LMUnsupportedFeatureError("reasoning_effort is not this server's spelling.", model=lm.model)
    if form in ("deepseek", "kimi") and off:
        payload["thinking"] = {"type": "disabled"}
        return
    if form == "deepseek":
        payload["thinking"] = {"type": "enabled"}
    payload["reasoning_effort"] = effort


def _account(lm: LM, given: Mapping[str, Any], payload: dict[str, Any]) -> None:
    if lm.provider.routes_prompt_cache:
        if given.get("prompt_cache_key"):
            payload["prompt_cache_key"] = given["prompt_cache_key"]
        if given.get("prompt_cache_retention") == "24h":
            payload["prompt_cache_retention"] = "24h"
    if given.get("service_tier") is not None:
        payload["service_tier"] = given["service_tier"]
    if given.get("user") is not None:
        payload[lm.provider.user_field] = given["user"]
    if given.get("store") is not None:
        payload["store"] = bool(given["store"])
    payload.update({name: value for name, value in given.items() if name in _PASSED_ON and value is not None})


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


def _calls(lm: LM, calls: Any) -> list[dict[str, Any]]:
    found = []
    for index, call in enumerate(calls):
        if not isinstance(call, dict) or (call.get("type") or "function") != "function":
            continue
        function = as_object(call.get("function"))
        if not function.get("name"):
            raise LMUnexpectedError("The reply holds a tool call without a name.", model=lm.model)
        id = str(call.get("id") or f"call_{index}")
        found.append(tool_call(id, str(function["name"]), arguments_of(function.get("arguments"))))
    return found


def _class(status: int, message: str, code: str, kind: str) -> type[LMProviderError]:
    if code == "context_length_exceeded":
        return LMContextWindowExceededError
    if error_classes.OPENAI_CODES.get(code) is LMUnsupportedModelError:
        return LMUnsupportedModelError
    if status == 404 and error_classes.is_about_model(message, code, kind):
        return LMUnsupportedModelError
    # Billing before the rate limit: both ride on 429, and only one of them is worth a retry.
    if code in ("insufficient_quota", "1113") or kind in ("insufficient_quota", "exceeded_current_quota_error"):
        return LMBillingError
    if code == "invalid_api_key" or kind == "authentication_error":
        return LMAuthError
    if code == "rate_limit_exceeded" or kind == "rate_limit_error":
        return LMRateLimitError
    return error_classes.class_of_status(status)
