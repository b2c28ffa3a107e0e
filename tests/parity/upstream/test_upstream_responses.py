"""Parity: the cases of DSPy's tests of adapters about the Responses API, natively."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.parity.one_case import KNOWN, agreed, awaited, call, case, values
from tests.support.parity.oracle import Oracle
from tests.support.parity.tool_cases import search

pytestmark = pytest.mark.parity

TEXT = {"type": "output_text", "text": '{"answer": "Washington, D.C."}', "annotations": []}
SAID = {"id": "m1", "type": "message", "role": "assistant", "status": "completed", "content": [TEXT]}
CALLED = {
    "type": "function_call", "name": "search", "arguments": '{"query": "cats"}', "call_id": "call_1",
    "status": "completed", "id": "fc_1",
}  # fmt: skip


def responded(item: dict[str, Any]) -> dict[str, Any]:
    """A call of the Responses API, and what it answers."""
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    body = {"id": "resp_1", "object": "response", "created_at": 0, "status": "completed", "model": "gpt-4o-mini"}
    made = call("", model=KNOWN, lm={"model_type": "responses"})
    made["replies"] = [{"body": json.dumps({**body, "output": [item], "usage": usage, "error": None})}]
    return made


def test_a_schema_is_the_format_of_the_text(oracle: Oracle) -> None:
    """parity: `response_format` becomes `text.format`; the answer is read by the json adapter, called and awaited."""
    one = case("question -> answer", adapter="json", inputs={"question": "?"}, calls=[responded(SAID)])
    for made in (agreed(oracle, one)["calls"][0], awaited(oracle, one)[0]):
        assert values(made["outcome"]) == {"answer": "'Washington, D.C.'"}
        (body,) = map(json.loads, made["bodies"])
        assert "response_format" not in body and body["text"]["format"]["type"] == "json_schema"
        assert body["text"]["format"]["name"] and isinstance(body["text"]["format"]["schema"], dict)


def test_a_call_alone_is_an_answer(oracle: Oracle) -> None:
    """parity: tools in the API's own form, and a call under its `call_id`."""
    one = case(
        "question, tools: list[dspy.Tool] -> tool_calls: dspy.ToolCalls", native_calls=True,
        inputs={"question": "find cats", "tools": [("dspy", "Tool", {"func": search})]}, calls=[responded(CALLED)],
    )  # fmt: skip
    for made in (agreed(oracle, one)["calls"][0], awaited(oracle, one)[0]):
        (found,) = values(made["outcome"])["tool_calls"]
        assert found[:2] == ("call_1", "search")
        (body,) = map(json.loads, made["bodies"])
        assert body["tools"][0]["name"] == "search" and "function" not in body["tools"][0]
