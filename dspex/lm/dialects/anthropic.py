"""Anthropic's Messages dialect."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import (
    InvalidInput,
    LMContextWindowExceededError,
    LMError,
    LMProviderError,
    LMRateLimitError,
    LMUnexpectedError,
    LMUnsupportedFeatureError,
    LMUnsupportedModelError,
)
from . import error_classes, request_options
from .answer import Answer, arguments_of, count, counters, no_answer, tool_call
from .dialect import Message
from .error_envelopes import Fault, complaint_in, fault_in
from .json_body import as_object, decode, encode
from .stream_reader import StreamReader

if TYPE_CHECKING:
    from ..record import LM

API_VERSION = "2023-06-01"
_DEFAULT_MAX_TOKENS = 16384
_SMALLER = (("claude-3-haiku", 4096), ("claude-3-opus", 4096), ("claude-3-sonnet", 4096))
_SMALLER_35 = (("claude-3-5-", 8192), ("claude-3.5-", 8192))
_ADAPTIVE = "sonnet-5 opus-5 sonnet-4-6 opus-4-6 opus-4-7 opus-4-8 fable mythos haiku-5".split()
_THINKING = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 24576, "max": 32768}
_PASSED_ON = ("logit_bias", "metadata", "verbosity", "moderation", "provider", "prediction")


def endpoint(lm: LM) -> str:
    """The URL of a completion."""
    return f"{lm.api_base}/messages"


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
    request_options.check(lm, given)
    system, turns = _conversation(lm, messages)
    effort = request_options.effort(lm.provider, given.get("reasoning_effort"))
    adaptive = any(marker in lm.name.lower() for marker in _ADAPTIVE)
    budget = None if effort in (None, "none") or adaptive else _THINKING.get(str(effort), 8192)
    limit = request_options.max_tokens(lm, given)
    payload: dict[str, Any] = {
        "model": lm.name,
        "messages": turns,
        "stream": stream,
        "max_tokens": (_default_limit(lm.name) if limit is None else limit) + (budget or 0),
    }
    if system:
        payload["system"] = system
    _sampling(given, payload)
    _tools(lm, given, payload)
    if adaptive and effort not in (None, "none"):
        payload["thinking"] = {"type": "adaptive"}
        payload["output_config"] = {"effort": "low" if effort == "minimal" else effort}
    elif budget is not None:
        payload["thinking"] = {"type": "enabled", "budget_tokens": budget}
    schema = request_options.schema_of(lm, given.get("response_format"))
    if schema is not None:
        _format(lm, schema, payload)
    if given.get("service_tier") is not None:
        payload["service_tier"] = given["service_tier"]
    if given.get("user") is not None:
        payload["metadata"] = {"user_id": given["user"]}
    payload.update({name: value for name, value in given.items() if name in _PASSED_ON and value is not None})
    return encode(payload)


def answer(lm: LM, body: bytes) -> Answer:
    """A 2xx response's body, read.

    Raises:
        LMError: the body is not a message.
    """
    data = decode(lm, body)
    if fault := fault_in(data):
        raise _reported(lm, fault)
    if not isinstance(data.get("content"), list) and data.get("type") != "message":
        raise no_answer(lm, data)
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for index, block in enumerate(data.get("content") or ()):
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "text":
            texts.append(str(block.get("text") or ""))
        elif kind == "thinking":
            thoughts.append(str(block.get("thinking") or block.get("text") or ""))
        elif kind == "tool_use":
            if not block.get("name"):
                raise LMUnexpectedError("The reply holds a tool call without a name.", model=lm.model)
            arguments = arguments_of(block.get("input"))
            calls.append(tool_call(str(block.get("id") or f"tool_{index}"), str(block["name"]), arguments))
    empty = not (texts or thoughts or calls)
    return Answer(
        text="".join(texts) if texts or empty else None,
        model=str(data.get("model") or lm.name),
        finish_reason="tool_call" if calls else _finish(data.get("stop_reason")),
        usage=usage(data.get("usage")),
        tool_calls=calls,
        reasoning="".join(thoughts) or None,
    )


def mended(lm: LM, body: bytes) -> bytes:
    """The body with tool inputs that are no objects as the native side reads them: DSPy's reader would empty them."""
    if b'"tool_use"' not in body:
        return body
    data = decode(lm, body)
    blocks = [
        block for block in data.get("content") or () if isinstance(block, dict) and block.get("type") == "tool_use"
    ]
    odd = [block for block in blocks if not isinstance(block.get("input"), dict)]
    for block in odd:
        block["input"] = arguments_of(block.get("input"))
    return encode(data) if odd else body


def reader(lm: LM) -> StreamReader:
    """A reader for a streamed response."""
    return _AnthropicStream(lm)


def failure(lm: LM, status: int, body: bytes) -> LMError:
    """The error that a response of 400 and more stands for."""
    found = error_classes.envelope(body)
    if found is None:
        return error_classes.failure(
            lm, error_classes.class_of_status(status), error_classes.plain_text(body), status=status
        )
    data, error = found
    source = error if isinstance(error, dict | str) else data
    message = str(source.get("message") or "") if isinstance(source, dict) else str(source)
    kind = str(source.get("type") or source.get("code") or "") if isinstance(source, dict) else ""
    request_id = str(data.get("request_id") or "") or None
    chosen = _class(status, message, kind)
    return error_classes.failure(lm, chosen, message, status=status, code=kind or None, request_id=request_id)


def usage_in(data: Mapping[str, Any]) -> dict[str, Any]:
    """The counters that a response or an event holds."""
    return usage(data.get("usage"))


def usage(data: Any) -> dict[str, Any]:
    """The counters of a response in DSPy's shape: prompt tokens include what came from and went to the cache."""
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
            self._started = message.get("usage") or {}
        elif kind == "content_block_start":
            block = payload.get("content_block") or {}
            if block.get("type") == "tool_use":
                start = json.dumps(block["input"]) if block.get("input") else ""
                self._fragment(index, block.get("id"), block.get("name"), start)
        elif kind == "content_block_delta":
            self._delta(index, payload.get("delta") or {})
        elif kind == "message_delta":
            if (reason := as_object(payload.get("delta")).get("stop_reason")) is not None:
                self._finished(_finish(reason))
            self.usage = usage({**self._started, **(payload.get("usage") or {})})
        elif kind == "message_stop":
            self.ended = True
        elif kind is None and (complaint := complaint_in(payload)):
            raise self._failed(complaint)

    def _delta(self, index: int, delta: dict[str, Any]) -> None:
        kind = delta.get("type")
        if kind == "text_delta" and delta.get("text"):
            self.text.append(str(delta["text"]))
        elif kind == "thinking_delta":
            self.reasoning.append(str(delta.get("thinking") or ""))
        elif kind == "input_json_delta":
            self._fragment(index, None, None, str(delta.get("partial_json") or ""))

    def _failed(self, fault: Fault) -> LMError:
        return _reported(self.lm, fault)


def _conversation(lm: LM, messages: Sequence[Message]) -> tuple[str, list[dict[str, Any]]]:
    system = ""
    turns: list[dict[str, Any]] = []
    results: list[dict[str, Any]] | None = None
    for index, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if role == "tool":  # consecutive tool messages are one turn
            if results is None:
                results = []
                turns.append({"role": "user", "content": results})
            results.append(_result(lm, message))
            continue
        results = None
        if role in ("system", "developer"):
            text = "\n".join(_texts(lm, content))
            if index == 0:
                system = request_options.filled(lm, text)
            else:
                turns.append({"role": "user", "content": [{"type": "text", "text": f"[developer]\n{text}"}]})
        elif role == "user":
            turns.append({"role": "user", "content": _blocks(lm, content)})
        elif role == "assistant":
            turns.append({"role": "assistant", "content": _assistant(lm, message)})
        else:
            raise InvalidInput(f"A message's role must be system, user, assistant or tool, not {role!r}.")
    return system, turns


def _assistant(lm: LM, message: Message) -> list[dict[str, Any]]:
    texts = [message["reasoning_content"]] if message.get("reasoning_content") else []
    if message.get("content") is not None:
        texts += _texts(lm, message["content"])
    if message.get("refusal"):
        texts.append(message["refusal"])
    blocks = [{"type": "text", "text": text} for text in texts]
    for call in message.get("tool_calls") or ():
        function = call["function"]
        arguments = function.get("arguments", "{}")
        try:
            parsed = json.loads(arguments or "{}") if isinstance(arguments, str) else arguments
        except ValueError:
            raise InvalidInput("A tool call's arguments are not JSON.") from None
        blocks.append({"type": "tool_use", "id": call["id"], "name": function["name"], "input": parsed})
    return blocks or [{"type": "text", "text": ""}]


def _result(lm: LM, message: Message) -> dict[str, Any]:
    blocks = _blocks(lm, message.get("content"))
    out: dict[str, Any] = {"type": "tool_result", "tool_use_id": message["tool_call_id"]}
    if len(blocks) == 1 and blocks[0]["type"] == "text":
        out["content"] = blocks[0]["text"]
    elif blocks:
        out["content"] = blocks
    return out


def _texts(lm: LM, content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list | tuple):
        raise InvalidInput("A message's content must be text or a list of content blocks.")
    if any(block.get("type") != "text" for block in content):
        raise LMUnsupportedFeatureError("Only text can be sent there.", model=lm.model, provider=lm.provider.id)
    return [block["text"] for block in content]


def _blocks(lm: LM, content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list | tuple):
        raise InvalidInput("A message's content must be text or a list of content blocks.")
    return [_block(lm, block) for block in content]


def _block(lm: LM, block: Mapping[str, Any]) -> dict[str, Any]:
    kind = block.get("type")
    if kind == "text":
        return {"type": "text", "text": block["text"]}
    if kind == "image_url":
        return {"type": "image", "source": _source(block["image_url"]["url"])}
    if kind == "file" and isinstance(block.get("file"), Mapping) and block["file"].get("filename") is None:
        file = block["file"]
        if file.get("file_id"):
            return {"type": "document", "source": {"type": "file", "file_id": file["file_id"]}}
        return {"type": "document", "source": _source(file["file_data"])}
    if kind == "input_audio":
        return {"type": "text", "text": ""}  # as DSPy's engine does; the endpoint refuses an empty block
    raise LMUnsupportedFeatureError(
        f"A content block of type {kind!r} cannot be sent there.", model=lm.model, provider=lm.provider.id
    )


def _source(url: str) -> dict[str, str]:
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    head, _, payload = url[5:].partition(",")
    if not head.endswith(";base64") or not payload:
        raise InvalidInput("A data URI must be data:<media-type>;base64,<payload>.")
    return {"type": "base64", "media_type": head[: -len(";base64")], "data": payload}


def _sampling(given: Mapping[str, Any], payload: dict[str, Any]) -> None:
    temperature = request_options.number(given, "temperature")
    if temperature is not None:
        payload["temperature"] = min(temperature, 1.0)  # this wire's ceiling; DSPy clamps too
    top_p = request_options.number(given, "top_p")
    if top_p is not None:
        payload["top_p"] = top_p
    if given.get("top_k") is not None:
        payload["top_k"] = int(given["top_k"])
    if stop := request_options.stops(given):
        payload["stop_sequences"] = stop


def _tools(lm: LM, given: Mapping[str, Any], payload: dict[str, Any]) -> None:
    tools = request_options.function_tools(lm, given.get("tools"))
    if tools:
        payload["tools"] = [
            {"name": t["name"], "description": t["description"], "input_schema": t["parameters"]} for t in tools
        ]
    choice, parallel = request_options.tool_choice(given.get("tool_choice")), given.get("parallel_tool_calls")
    if choice is None and parallel is None:
        return
    mode, name = choice or ("auto", None)
    kind = {"none": "none", "required": "any", "auto": "auto"}[mode]
    payload["tool_choice"] = {"type": "tool", "name": name} if name else {"type": kind}
    if parallel is False and mode != "none":
        payload["tool_choice"]["disable_parallel_tool_use"] = True


def _format(lm: LM, schema: dict[str, Any], payload: dict[str, Any]) -> None:
    if schema["type"] == "json_object":
        raise LMUnsupportedFeatureError(
            "The Messages API has no any-JSON mode; give a JSON schema.", model=lm.model, provider=lm.provider.id
        )
    form = {"format": {"type": "json_schema", "schema": schema["schema"]}}
    payload["output_config"] = {**payload.get("output_config", {}), **form}


def _default_limit(name: str) -> int:
    lowered = name.lower()
    return next((limit for marker, limit in _SMALLER + _SMALLER_35 if marker in lowered), _DEFAULT_MAX_TOKENS)


def _finish(reason: Any) -> str:
    reason = str(reason or "").lower()
    if reason in ("max_tokens", "model_context_window_exceeded"):
        return "length"
    if reason in ("tool_use", "pause_turn"):
        return "tool_call"
    return "content_filter" if reason in ("refusal", "safety", "content_filter") else "stop"


def _reported(lm: LM, fault: Fault) -> LMError:
    """The error that a fault inside a success is."""
    kind = fault.kind
    if kind is not LMRateLimitError and error_classes.is_about_length(fault.message):  # a rate counts tokens too
        kind = LMContextWindowExceededError
    elif "not_found_error" in fault.codes and error_classes.is_about_model(fault.message):
        kind = LMUnsupportedModelError
    return fault.error(lm, kind)


def _class(status: int, message: str, kind: str) -> type[LMProviderError]:
    if error_classes.is_about_length(message):
        return LMContextWindowExceededError
    gone = kind in ("not_found_error", "resource_not_found_error") and error_classes.is_about_model(message)
    if kind == "DeploymentNotFound" or gone:
        return LMUnsupportedModelError
    return error_classes.ANTHROPIC_TYPES.get(kind) or error_classes.class_of_status(status)
