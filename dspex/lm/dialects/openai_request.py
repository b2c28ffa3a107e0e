"""Build a request's body in OpenAI's Chat Completions dialect, byte for byte as DSPy does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import InvalidInput
from ..sent_options import MARKS
from . import request_options
from .cache_marks import marked
from .dialect import Message
from .json_body import arguments_in, encode, encode_chat, json_text, quoted, quoted_once
from .media_blocks import chat_block, unsupported

if TYPE_CHECKING:
    from ..record import LM

_PLAIN_ROLES = frozenset({"system", "user", "assistant"})
_ASKING_ROLES = frozenset({"system", "user"})


def body(lm: LM, messages: Sequence[Message], given: Mapping[str, Any], stream: bool) -> bytes:
    """Return the request's body.

    Raises:
        InvalidInput: messages or options that are malformed.
        LMUnsupportedFeatureError: a content block or option that this dialect cannot carry.
    """
    rest: dict[str, Any] = {}
    if stream:
        rest["stream"] = True
        rest["stream_options"] = {"include_usage": True}
    marks = None
    if given:
        members = request_options.members(lm, given)
        _sampling(lm, given, rest)
        _tools(lm, given, rest)
        _reasoning(lm, given, rest)
        _account(lm, given, rest)
        if members is not None:
            rest |= members
            marks = given.get(MARKS)
    if marks:
        rows = [json.loads(row) for row in _rows(lm, messages)]
        return encode(marked({"model": lm.name, "messages": rows, **rest}, marks))
    return encode_chat(lm.name, _rows(lm, messages), rest)


def _rows(lm: LM, messages: Sequence[Message]) -> list[str]:
    """Return the messages as DSPy's engine would write them, each as JSON."""
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
    parsed = arguments_in(function)
    text = json.dumps(parsed, separators=(",", ":"))
    return {"id": call["id"], "type": "function", "function": {"name": function["name"], "arguments": text}}


def _joined(lm: LM, content: Any) -> str:
    """Content for a field that takes text only."""
    if isinstance(content, str):
        return content
    texts = []
    for block in content or ():
        if block.get("type") != "text":
            raise unsupported(lm, block)
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
        elif media:
            found.append(chat_block(lm, block))
        else:
            raise unsupported(lm, block)
    return found[0]["text"] if len(found) == 1 and found[0]["type"] == "text" else found


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
    elif given.get("top_logprobs") is not None:
        raise InvalidInput("top_logprobs goes with logprobs=True.", field="top_logprobs")


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
    if effort == "none" and lm.provider.always_reasons:
        effort = "low"  # the nearest, as in DSPy
    form, off = lm.provider.reasoning, effort == "none"
    if form == "openrouter":
        payload["reasoning"] = {"enabled": False} if off else {"effort": effort}
        return
    if form in ("deepseek", "kimi") and off:
        payload["thinking"] = {"type": "disabled"}
        return
    if form == "deepseek":
        payload["thinking"] = {"type": "enabled"}
    payload["reasoning_effort"] = effort


def _account(lm: LM, given: Mapping[str, Any], payload: dict[str, Any]) -> None:
    if lm.provider.routes_prompt_cache and given.get("prompt_cache_key"):
        payload["prompt_cache_key"] = given["prompt_cache_key"]
    if given.get("service_tier") is not None:
        payload["service_tier"] = given["service_tier"]
    if given.get("user") is not None:
        payload[lm.provider.user_field] = given["user"]
    if given.get("store") is not None:
        payload["store"] = bool(given["store"])
