"""Unit: tool arguments that are no JSON object: kept as DSPy keeps them; no tool runs with defaults instead."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from dspex.errors import LMServerError, ToolFailed
from dspex.lm.dialects import anthropic, openai
from dspex.lm.record import LM
from dspex.types.tool_calls import ToolCall, ToolCalls

OPENAI, ANTHROPIC = LM("openai/m", api_key="k"), LM("anthropic/m", api_key="k")
CUT = '{"table": "users", "where": "id = 4'
CASES: list[tuple[str, dict[str, Any]]] = [
    (CUT, {"partial_json": CUT}),
    ("{", {"partial_json": "{"}),
    ("table=users", {"partial_json": "table=users"}),
    ("{'table': 'users'}", {"partial_json": "{'table': 'users'}"}),
    ('{"a": 1} {"b": 2}', {"partial_json": '{"a": 1} {"b": 2}'}),
    ('["users"]', {"value": ["users"]}),
    ('"users"', {"value": "users"}),
    ("5", {"value": 5}),
    ("null", {"value": None}),
    ("[" * 100_000, {"partial_json": "[" * 100_000}),
    ("", {}),
    ('{"table": "users"}', {"table": "users"}),
]
argued = pytest.mark.parametrize(("text", "wanted"), CASES, ids=[text[:20] for text, _ in CASES])


def _plain_openai(text: Any) -> Any:
    call = {"id": "c", "type": "function", "function": {"name": "drop", "arguments": text}}
    body = json.dumps({"choices": [{"message": {"tool_calls": [call]}, "finish_reason": "length"}]}).encode()
    return openai.answer(OPENAI, openai.repaired(OPENAI, body))


def _plain_anthropic(text: Any) -> Any:
    block = {"type": "tool_use", "id": "c", "name": "drop", "input": text}
    body = json.dumps({"type": "message", "content": [block], "stop_reason": "max_tokens"}).encode()
    return anthropic.answer(ANTHROPIC, body)


def _streamed_openai(text: str) -> Any:
    reader = openai.reader(OPENAI)
    for piece in ({"id": "c", "function": {"name": "drop"}}, *({"function": {"arguments": c}} for c in _halves(text))):
        reader.feed(_event({"choices": [{"delta": {"tool_calls": [{"index": 0, **piece}]}}]}))
    reader.feed(_event({"choices": [{"delta": {}, "finish_reason": "length"}]}))
    return reader.finish()


def _streamed_anthropic(text: str) -> Any:
    reader = anthropic.reader(ANTHROPIC)
    start = {"type": "tool_use", "id": "c", "name": "drop", "input": {}}
    reader.feed(_event({"type": "content_block_start", "index": 0, "content_block": start}))
    for half in _halves(text):
        delta = {"type": "input_json_delta", "partial_json": half}
        reader.feed(_event({"type": "content_block_delta", "index": 0, "delta": delta}))
    reader.feed(_event({"type": "message_delta", "delta": {"stop_reason": "max_tokens"}}))
    return reader.finish()


def _halves(text: str) -> list[str]:
    return [text[: len(text) // 2], text[len(text) // 2 :]]


def _event(payload: Any) -> bytes:
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


@argued
@pytest.mark.parametrize("read", [_plain_openai, _streamed_openai, _plain_anthropic, _streamed_anthropic])
def test_arguments_that_are_no_object_are_kept(read: Any, text: str, wanted: dict[str, Any]) -> None:
    """unit: in each dialect, plain and streamed; never as {} but where the model said nothing."""
    (call,) = read(text).tool_calls
    assert call["function"]["name"] == "drop"
    assert json.loads(call["function"]["arguments"]) == wanted


@pytest.mark.parametrize("given", [[1, 2], 5, True])
def test_arguments_that_are_no_text_are_kept_for_workers_too(given: Any) -> None:
    """unit: DSPy's reader would make {} of them; what a worker gets is what the native side reads."""
    (call,) = _plain_openai(given).tool_calls
    assert json.loads(call["function"]["arguments"]) == {"value": given}
    block = {"type": "tool_use", "id": "c", "name": "drop", "input": given}
    body = json.dumps({"type": "message", "content": [block]}).encode()
    (mended,) = json.loads(anthropic.repaired(ANTHROPIC, body))["content"]
    assert mended["input"] == {"value": given}


@pytest.mark.parametrize("given", [[], 0, False, [1], 5, True, {"table": "users"}])
def test_streamed_arguments_that_are_no_text_are_an_error(given: Any) -> None:
    """unit: [], 0 and false became {}, and a tool would have run with its defaults; workers get the same error."""
    call = {"index": 0, "id": "c", "function": {"name": "drop", "arguments": given}}
    delta = {"type": "input_json_delta", "partial_json": given}
    with pytest.raises(LMServerError, match="no text"):
        openai.reader(OPENAI).feed(_event({"choices": [{"delta": {"tool_calls": [call]}}]}))
    with pytest.raises(LMServerError, match="no text"):
        anthropic.reader(ANTHROPIC).feed(_event({"type": "content_block_delta", "index": 0, "delta": delta}))


@pytest.mark.parametrize("given", [[], 0, False])
def test_streamed_inputs_that_are_no_objects_are_kept(given: Any) -> None:
    """unit: of Anthropic, where a block may begin with its input."""
    reader = anthropic.reader(ANTHROPIC)
    start = {"type": "tool_use", "id": "c", "name": "drop", "input": given}
    reader.feed(_event({"type": "content_block_start", "index": 0, "content_block": start}))
    reader.feed(_event({"type": "message_delta", "delta": {"stop_reason": "tool_use"}}))
    (call,) = reader.finish().tool_calls
    assert json.loads(call["function"]["arguments"]) == {"value": given}


def test_body_without_odd_arguments_is_passed_on_as_it_came() -> None:
    """unit: byte for byte."""
    spaced = b'{"choices":  [{"message": {"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}}]}'
    assert openai.repaired(OPENAI, spaced) is spaced
    spaced = b'{"content":  [{"type": "tool_use", "name": "f", "input": {}}]}'
    assert anthropic.repaired(ANTHROPIC, spaced) is spaced


@pytest.mark.parametrize("text", [CUT, "{", "table=users", "5", '["users"]'])
def test_no_tool_runs_with_its_defaults_instead(text: str) -> None:
    """unit: synchronous, awaited, and one that takes anything."""
    ran: list[Any] = []

    def drop(table: str = "all", where: str = "true") -> None:
        ran.append(table)

    async def adrop(table: str = "all") -> None:
        ran.append(table)

    calls = ToolCalls.from_dict_list(_plain_openai(text).tool_calls)
    with pytest.raises(ToolFailed):
        calls.tool_calls[0].execute({"drop": drop})
    with pytest.raises(ToolFailed):
        asyncio.run(calls.tool_calls[0].aexecute({"drop": adrop}))
    assert not ran


def test_unfinished_arguments_are_refused_by_a_tool_that_takes_anything() -> None:
    """unit: the cause says what to do, and quotes nothing of the model's."""
    ran: list[Any] = []
    call = ToolCall(name="log", args={"partial_json": CUT})
    with pytest.raises(ToolFailed) as caught:
        call.execute({"log": lambda **facts: ran.append(facts)})
    assert "max_tokens" in str(caught.value.__cause__) and "users" not in str(caught.value.__cause__)
    assert not ran


@pytest.mark.parametrize("arguments", [[1], 5, "x y"])
def test_calls_in_a_text_whose_arguments_are_no_mapping_are_no_calls(arguments: Any) -> None:
    """unit: a model's own wording of a call."""
    with pytest.raises(ValueError):
        ToolCalls.model_validate({"tool_calls": [{"name": "drop", "args": arguments}]})
