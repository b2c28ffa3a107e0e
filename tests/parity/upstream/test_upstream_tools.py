"""Parity: the cases of DSPy's tests of adapters about tools, natively; docs/internals/upstream-cases.md lists them.

The turns that hold a `dspy.Reasoning`, as DSPy's own cases do, run in a worker: `test_upstream_in_workers.py`.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.parity.native_side import native_results
from tests.support.parity.one_case import KNOWN, agreed, awaited, call, case, values
from tests.support.parity.oracle import Oracle
from tests.support.parity.tool_cases import search, weather

pytestmark = pytest.mark.parity

TOOLS = [("dspy", "Tool", {"func": search}), ("dspy", "Tool", {"func": weather})]
ONLY_CALLS = "question, tools: list[dspy.Tool] -> tool_calls: dspy.ToolCalls"
ANSWER_TOO = "question, tools: list[dspy.Tool] -> answer, tool_calls: dspy.ToolCalls"
FOUND = {"id": "call_1", "name": "search", "arguments": '{"query": "cats"}'}
READ = ("call_1", "search", ("dict", [(("str", "'query'"), ("str", "'cats'"))]))
SAID = "[[ ## answer ## ]]\nI should use a tool.\n\n[[ ## completed ## ]]"
SAID_JSON = '{"answer": "I should use a tool."}'
TEXT_CALL = '{"name": "search", "args": {"query": "cats"}}'


def with_tools(signature: str, *replies: dict[str, Any], native: bool | None = True, **given: Any) -> dict[str, Any]:
    """A call with tools, and what the model says."""
    made = call("", model=KNOWN, config=given.pop("config", None))
    made["replies"] = list(replies) or [{"text": None, "calls": [FOUND]}]
    return case(signature, native_calls=native, inputs={"question": "?", "tools": TOOLS}, calls=[made], **given)


def turns(*given: dict[str, Any], native: bool, adapter: str = "chat") -> dict[str, Any]:
    """A question that goes on from turns with tools, whose thought is a plain text."""
    signature = "question, history: dspy.History, tools: list[dspy.Tool] -> thought: str, tool_calls: dspy.ToolCalls"
    one = with_tools(signature, native=native, adapter=adapter)
    one["inputs"]["history"] = ("dspy", "History", {"messages": list(given)})
    return one


def turn(*ids: str | None, results: Any = (), **more: Any) -> dict[str, Any]:
    """A turn whose calls have these ids; `results` are for the ids that they name."""
    calls = [("dspy", "ToolCalls.ToolCall", {"id": id, "name": "search", "args": {"query": "cats"}}) for id in ids]
    found = [{"call_id": id, "name": "search", "value": {"items": ["cat"]}} for id in results or ()]
    told = ("dspy", "ToolCallResults", {"tool_call_results": found}) if results is not None else None
    made = ("dspy", "ToolCalls", {"tool_calls": calls, "tool_call_results": told})
    return {"question": "Q1", "thought": "I should search.", "tool_calls": made, **more}


def body_of(made: dict[str, Any]) -> Any:
    """The first request of the only call."""
    return json.loads(made["calls"][0]["bodies"][0])


@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_tools_leave_the_prompt_and_go_beside_it(oracle: Oracle, adapter: str) -> None:
    """parity: with native function calling: names, texts and schemas; neither tools nor calls are in the prompt."""
    body = body_of(agreed(oracle, with_tools(ONLY_CALLS, adapter=adapter)))
    assert [tool["function"]["name"] for tool in body["tools"]] == ["search", "weather"]
    assert body["tools"][0]["function"]["parameters"]["required"] == ["query"]
    assert "tools ##" not in json.dumps(body["messages"]) and "{tool_calls}" not in json.dumps(body["messages"])


@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_tools_without_function_calling_are_described_in_the_prompt(oracle: Oracle, adapter: str) -> None:
    """parity: and the form of calls too; nothing goes beside it."""
    body = body_of(agreed(oracle, with_tools(ANSWER_TOO, {"text": "x"}, native=False, adapter=adapter)))
    said = body["messages"][0]["content"] + body["messages"][1]["content"]
    assert "tools" not in body and "It takes arguments {'query'" in said and "Tool calls must be a JSON object" in said


@pytest.mark.parametrize("adapter", ["chat", "json"])
@pytest.mark.parametrize("parallel", [True, False])
def test_parallel_calls_can_be_asked_for(oracle: Oracle, adapter: str, parallel: bool) -> None:
    """parity: what DSPy's adapter option sends is sent by the call's `config` here; the call's own word goes first."""
    theirs = with_tools(ONLY_CALLS, adapter=adapter, config={} if parallel else {"parallel_tool_calls": False})
    theirs["adapter_options"] = {"parallel_tool_calls": True}
    ours = with_tools(ONLY_CALLS, adapter=adapter, config={"tool_choice": "auto", "parallel_tool_calls": parallel})
    sent = body_of(native_results(ours))
    assert sent == body_of(oracle.ask([theirs])[0])
    assert (sent["tool_choice"], sent["parallel_tool_calls"]) == ("auto", parallel)


@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_past_calls_are_replayed_as_messages(oracle: Oracle, adapter: str) -> None:
    """parity: one call or two, with the results under their ids; a turn without a question has no user message."""

    def roles(*given: dict[str, Any]) -> list[str]:
        messages = body_of(agreed(oracle, turns(*given, native=True, adapter=adapter)))["messages"]
        return ["+".join([m["role"], *(each["id"] for each in m.get("tool_calls") or ())]) for m in messages]

    assert roles(turn("a", results=["a"])) == ["system", "user", "assistant+a", "tool", "user"]
    assert roles(turn("a", "b", results=["a", "b"])) == ["system", "user", "assistant+a+b", "tool", "tool", "user"]
    only = {"tool_calls": turn("a", results=["a"])["tool_calls"]}
    assert roles(only) == ["system", "assistant+a", "tool", "user"]
    for unmatched in (turn("a", results=None), turn("a", results=["other"]), turn(None, results=[None])):
        assert roles(unmatched) == ["system", "user", "assistant", "user"]


@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_past_calls_without_function_calling_stay_text(oracle: Oracle, adapter: str) -> None:
    """parity: the calls in the assistant's message, the results in one of the user's."""
    messages = body_of(agreed(oracle, turns(turn("a", results=["a"]), native=False, adapter=adapter)))["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user", "user"]
    assert "tool_calls" in messages[2]["content"] and "[[ ## tool_call_results ## ]]" in messages[3]["content"]
    assert "Q1" in messages[1]["content"] and "None" not in messages[3]["content"]


@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_calls_in_demos_are_shown(oracle: Oracle, adapter: str) -> None:
    """parity: as text, without function calling."""
    one = with_tools("question -> tool_calls: dspy.ToolCalls", {"text": TEXT_CALL}, native=False, adapter=adapter)
    one["inputs"].pop("tools")
    one["demos"] = [{"question": "Q1", "tool_calls": turn("a")["tool_calls"]}]
    assert '"name": "search"' in body_of(agreed(oracle, one))["messages"][2]["content"]


@pytest.mark.parametrize("adapter", ["chat", "json"])
@pytest.mark.parametrize("text", [None, "", "I'll search for that now."])
def test_calls_count_whatever_is_said_beside_them(oracle: Oracle, adapter: str, text: str | None) -> None:
    """parity: the calls with their ids; what was not said is None; called and awaited."""
    one = with_tools(ANSWER_TOO, {"text": text, "calls": [FOUND]}, adapter=adapter)
    for made in (agreed(oracle, one)["calls"][0], awaited(oracle, one)[0]):
        assert values(made["outcome"]) == {"answer": "None", "tool_calls": [READ]}


@pytest.mark.parametrize(("adapter", "text"), [("chat", SAID), ("json", SAID_JSON)])
def test_what_is_said_beside_calls_is_kept(oracle: Oracle, adapter: str, text: str) -> None:
    """parity: in the adapter's form, beside the calls or without any."""
    both = with_tools(ANSWER_TOO, {"text": text, "calls": [FOUND]}, adapter=adapter)
    found = values(agreed(oracle, both)["calls"][0]["outcome"])
    assert found == {"answer": "'I should use a tool.'", "tool_calls": [READ]}
    alone = with_tools(ANSWER_TOO, {"text": text}, adapter=adapter)
    assert values(agreed(oracle, alone)["calls"][0]["outcome"]) == {**found, "tool_calls": "None"}


@pytest.mark.parametrize("text", [f"[{TEXT_CALL}]", TEXT_CALL, f"[{TEXT_CALL}", f'{{"tool_calls": [{TEXT_CALL}]}}'])
def test_calls_in_text_are_read_in_every_form(oracle: Oracle, text: str) -> None:
    """parity: a list, one call, a list that is not closed, DSPy's own form; in both adapters."""
    chat = with_tools(ONLY_CALLS, {"text": f"[[ ## tool_calls ## ]]\n{text}"}, native=False)
    as_json = with_tools(ONLY_CALLS, {"text": f'{{"tool_calls": {text}}}'}, native=False, adapter="json")
    for one in (chat, as_json):
        assert values(agreed(oracle, one)["calls"][0]["outcome"]) == {"tool_calls": [(None, *READ[1:])]}


@pytest.mark.parametrize("arguments", ['{"query": "cats",}', "{'query': 'cats'}", '{"query": "cats"'])
@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_damaged_arguments_keep_their_call(oracle: Oracle, adapter: str, arguments: str) -> None:
    """parity: the call keeps its id and name, and its arguments are what DSPy's own client makes of them."""
    reply = {"text": None, "calls": [{**FOUND, "arguments": arguments}]}
    found = values(agreed(oracle, with_tools(ONLY_CALLS, reply, adapter=adapter))["calls"][0]["outcome"])
    assert found["tool_calls"][0][:2] == READ[:2]
