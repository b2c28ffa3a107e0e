"""Build a request's body in OpenAI's Responses dialect, byte for byte as DSPy does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import InvalidInput
from . import request_options
from .dialect import Message
from .json_body import arguments_in, encode
from .media_blocks import responses_block, unsupported

if TYPE_CHECKING:
    from ..record import LM

NESTED = ("text", "reasoning")  # members of which some are written here


def body(lm: LM, messages: Sequence[Message], given: Mapping[str, Any], stream: bool) -> bytes:
    """Return the request's body.

    Raises:
        InvalidInput: messages or options that are malformed.
        LMUnsupportedFeatureError: a content block or option that this dialect cannot carry.
    """
    members = request_options.members(lm, given)
    instructions, items = _conversation(lm, messages)
    payload: dict[str, Any] = {"model": lm.name, "input": items, "stream": stream}
    if instructions is not None:
        payload["instructions"] = instructions
    _sampling(lm, given, payload)
    _tools(lm, given, payload)
    _format(lm, given, payload)
    if (effort := request_options.effort(lm.provider, given.get("reasoning_effort"))) is not None:
        payload["reasoning"] = {"effort": effort}
    _account(given, payload)
    return encode(payload if members is None else joined(payload, members))


def joined(payload: dict[str, Any], members: Mapping[str, Any]) -> dict[str, Any]:
    """Return a body with further members; the objects of which it has some already are merged."""
    merged = {
        name: {**payload[name], **members[name]}
        for name in NESTED
        if isinstance(payload.get(name), Mapping) and isinstance(members.get(name), Mapping)
    }
    return {**payload, **members, **merged}


def _conversation(lm: LM, messages: Sequence[Message]) -> tuple[str | None, list[dict[str, Any]]]:
    """Return the instructions, and the items of the input."""
    instructions: str | None = None
    items: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if role in ("system", "developer") and not index:
            instructions = request_options.filled(lm, "\n".join(_texts(lm, content)))
        elif role in ("system", "developer"):
            said = [{"type": "input_text", "text": text} for text in _texts(lm, content)]
            items.append({"role": "developer", "content": said})
        elif role == "user":
            if blocks := _blocks(lm, content):
                items.append({"role": "user", "content": blocks})
        elif role == "assistant":
            items += _said(lm, message)
        elif role == "tool":
            items.append(_result(lm, message))
        else:
            raise InvalidInput(f"A message's role must be system, user, assistant or tool, not {role!r}.")
    return instructions, items


def _said(lm: LM, message: Message) -> list[dict[str, Any]]:
    """Return what the assistant said, then what it called."""
    texts = [message["reasoning_content"]] if message.get("reasoning_content") else []
    if message.get("content") is not None:
        texts += _texts(lm, message["content"])
    parts = [{"type": "output_text", "text": text} for text in texts]
    if message.get("refusal"):
        parts.append({"type": "refusal", "refusal": message["refusal"]})
    calls = [_called(call) for call in message.get("tool_calls") or ()]
    if not (parts or calls):
        parts = [{"type": "output_text", "text": ""}]
    return [*([{"role": "assistant", "content": parts}] if parts else ()), *calls]


def _called(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = json.dumps(arguments_in(function), separators=(",", ":"))
    return {"type": "function_call", "call_id": call["id"], "name": function["name"], "arguments": arguments}


def _result(lm: LM, message: Message) -> dict[str, Any]:
    if not isinstance(message.get("tool_call_id"), str):
        raise InvalidInput("A tool message needs its tool_call_id.")
    blocks = _blocks(lm, message.get("content") or "")
    is_text = all(block["type"] == "input_text" for block in blocks)
    output = "\n".join(block["text"] for block in blocks) if is_text else blocks
    return {"type": "function_call_output", "call_id": message["tool_call_id"], "output": output}


def _texts(lm: LM, content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list | tuple):
        raise InvalidInput("A message's content must be text or a list of content blocks.")
    found = []
    for block in content:
        if block.get("type") not in ("text", "refusal"):
            raise unsupported(lm, block)
        found.append(str(block.get("text") or block.get("refusal") or ""))
    return found


def _blocks(lm: LM, content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "input_text", "text": content}]
    if not isinstance(content, list | tuple):
        raise InvalidInput("A message's content must be text or a list of content blocks.")
    return [_block(lm, block) for block in content]


def _block(lm: LM, block: Mapping[str, Any]) -> dict[str, Any]:
    kind = block.get("type")
    if kind == "text":
        return {"type": "input_text", "text": block["text"]}
    if kind == "image_url":
        image = block["image_url"]
        shown = {"type": "input_image", "image_url": image["url"]}
        return {**shown, "detail": image["detail"]} if image.get("detail") else shown
    return responses_block(lm, block)


def _sampling(lm: LM, given: Mapping[str, Any], payload: dict[str, Any]) -> None:
    limit = request_options.max_tokens(lm, given)
    if limit is not None:
        payload["max_output_tokens"] = limit
    for name in ("temperature", "top_p"):
        value = request_options.number(given, name)
        if value is not None:
            payload[name] = value
    if given.get("logprobs"):
        payload["top_logprobs"] = int(given.get("top_logprobs") or 0)
        payload["include"] = ["message.output_text.logprobs"]
    elif given.get("top_logprobs") is not None:
        raise InvalidInput("top_logprobs goes with logprobs=True.", field="top_logprobs")


def _tools(lm: LM, given: Mapping[str, Any], payload: dict[str, Any]) -> None:
    if tools := request_options.function_tools(lm, given.get("tools")):
        payload["tools"] = [{"type": "function", **tool} for tool in tools]
    choice, parallel = request_options.tool_choice(given.get("tool_choice")), given.get("parallel_tool_calls")
    if choice is not None or parallel is not None:
        mode, name = choice or ("auto", None)
        payload["tool_choice"] = {"type": "function", "name": name} if name else mode
    if parallel is not None:
        payload["parallel_tool_calls"] = bool(parallel)


def _format(lm: LM, given: Mapping[str, Any], payload: dict[str, Any]) -> None:
    schema = request_options.schema_of(lm, given.get("response_format"))
    if schema is not None:
        payload["text"] = {"format": schema}


def _account(given: Mapping[str, Any], payload: dict[str, Any]) -> None:
    if given.get("prompt_cache_key"):
        payload["prompt_cache_key"] = given["prompt_cache_key"]
    if given.get("service_tier") is not None:
        payload["service_tier"] = given["service_tier"]
    if given.get("user") is not None:
        payload["safety_identifier"] = given["user"]
    if given.get("store") is not None:
        payload["store"] = bool(given["store"])
