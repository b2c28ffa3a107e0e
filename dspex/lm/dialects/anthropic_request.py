"""Build a request's body in Anthropic's Messages dialect, byte for byte as DSPy does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import (
    InvalidInput,
    LMUnsupportedFeatureError,
)
from ..sent_options import MARKS
from . import request_options
from .cache_marks import marked
from .dialect import Message
from .json_body import arguments_in, encode
from .media_blocks import messages_block, source_of

if TYPE_CHECKING:
    from ..record import LM

_DEFAULT_MAX_TOKENS = 16384
_SMALLER = (("claude-3-haiku", 4096), ("claude-3-opus", 4096), ("claude-3-sonnet", 4096))
_SMALLER_35 = (("claude-3-5-", 8192), ("claude-3.5-", 8192))
_ADAPTIVE = "sonnet-5 opus-5 sonnet-4-6 opus-4-6 opus-4-7 opus-4-8 fable mythos haiku-5".split()
_THINKING = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 24576, "max": 32768}


def body(lm: LM, messages: Sequence[Message], given: Mapping[str, Any], stream: bool) -> bytes:
    """Return the request's body.

    Raises:
        InvalidInput: messages or options that are malformed.
        LMUnsupportedFeatureError: a content block or option that this dialect cannot carry.
    """
    members = request_options.members(lm, given)
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
    if members is not None:
        if isinstance(members.get("metadata"), Mapping):  # beside the user's id, which stands there too
            members["metadata"] = {**payload.get("metadata", {}), **members["metadata"]}
        payload |= members
        payload = marked(payload, given.get(MARKS) or ())
    return encode(payload)


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
        parsed = arguments_in(function)
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
        return {"type": "image", "source": source_of(block["image_url"]["url"])}
    return messages_block(lm, block)


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
    wanted: dict[str, Any] = {"type": "tool", "name": name} if name else {"type": kind}
    if parallel is False and mode != "none":
        wanted["disable_parallel_tool_use"] = True
    payload["tool_choice"] = wanted


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
