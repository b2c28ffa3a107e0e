"""Parity: the cases of DSPy's tests of adapters that only a worker can run: they go there by themselves.

Reasoning by the model's own feature, code with a strict schema, citations, documents, and types of a user's own: the
bytes of each request and the outputs are DSPy's. docs/internals/upstream-cases.md lists them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import dspex
from tests.support.parity import shapes
from tests.support.parity.one_case import CLAUDE, KNOWN, UNKNOWN, call, case, field, in_worker, out, values
from tests.support.parity.oracle import Oracle
from tests.support.parity.public_side import public_messages
from tests.support.parity.tool_cases import search

pytestmark = pytest.mark.parity

OWN = "tests.support.parity.own_signatures"
ANSWER = "[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]"
TOOLS = [("dspy", "Tool", {"func": search})]
CITES = {"cited_text": "alpha", "document_index": 0, "start_char_index": 0, "end_char_index": 5}
DOCUMENT = ("dspy", "Document", {"data": "Alpha beta", "title": "Doc"})
PLAIN_DOCUMENT = ("dspy", "PlainDocument", {"data": "Alpha beta", "title": "Doc"})
CALL = {"id": "call_1", "name": "search", "args": {"query": "cats"}}


def asked(text: str | None, thought: str = "Step by step", model: str = CLAUDE, **reply: Any) -> dict[str, Any]:
    """A call of a model that thinks, or does not."""
    made = call(text, model=model, lm={"reasoning_effort": "low"} if model == CLAUDE else None)
    made["replies"][0] |= ({"reasoning": thought} if thought else {}) | reply
    return made


def turn(*calls: dict[str, Any], thought: str = "I should search.", **more: Any) -> dict[str, Any]:
    """A past turn in which tools were called."""
    results = [{"call_id": each["id"], "name": each["name"], "value": {"items": ["cat"]}} for each in calls]
    given = {
        "tool_calls": [("dspy", "ToolCalls.ToolCall", each) for each in calls],
        "tool_call_results": ("dspy", "ToolCallResults", {"tool_call_results": results}),
    }
    return {
        "question": "Q1",
        "next_thought": ("dspy", "Reasoning", {"content": thought}),
        "tool_calls": ("dspy", "ToolCalls", given | more),
    }


def past(*turns: dict[str, Any]) -> dict[str, Any]:
    """A question that goes on from these turns."""
    return case(
        "question, history: dspy.History, tools: list[dspy.Tool] -> next_thought: dspy.Reasoning, "
        "tool_calls: dspy.ToolCalls",
        native_calls=True,
        inputs={"question": "Q2", "history": ("dspy", "History", {"messages": list(turns)}), "tools": TOOLS},
        calls=[asked(None, "Again.", KNOWN, calls=[{"id": "c2", "name": "search", "arguments": '{"query": "dogs"}'}])],
    )


def path(name: str, **given: Any) -> dict[str, Any]:
    """A case whose signature is named by its path."""
    return case(f"{OWN}:{name}", **given) | {"form": "path"}


ORDER, ITEM = shapes.Order(items=[]), shapes.Item(name="lamp")
REASONED = "question -> reasoning: dspy.Reasoning, answer"
DEMO = {
    "image": ("dspy", "Image", {"url": "https://pictures.example/demo.png"}),
    "file": ("dspy", "File", {"file_id": "file-demo"}),
    "document": PLAIN_DOCUMENT, "tools": TOOLS, "profile": ("dspy", "Order", {"items": []}),
    "context": ["one", "two"], "question": "Who?", "answer": ("dspy", "Item", {"name": "lamp"}), "verdict": "yes",
    "confidence": 0.9,
}  # fmt: skip
SUNK = {"answer": {"name": "desk", "qty": 1}, "verdict": "no", "confidence": 0.5}

CASES: dict[str, dict[str, Any]] = {
    "reasoning": case(REASONED, inputs={"question": "?"}, calls=[asked(ANSWER)]),
    "reasoning in json": case(REASONED, adapter="json", inputs={"question": "?"}, calls=[asked('{"answer": "Paris"}')]),
    "reasoning of a model that has none": case(
        REASONED,
        inputs={"question": "?"},
        calls=[asked(f"[[ ## reasoning ## ]]\nso\n\n{ANSWER}", "", UNKNOWN)],
    ),
    "reasoning with tools": case(
        "question, tools: list[dspy.Tool] -> next_thought: dspy.Reasoning, tool_calls: dspy.ToolCalls",
        native_calls=True,
        inputs={"question": "?", "tools": TOOLS},
        calls=[
            asked("I'll search for that now.", calls=[{"id": "c1", "name": "search", "arguments": '{"query": "x"}'}])
        ],
    ),
    "reasoning and code": case(
        [field("question"), out("reasoning", "dspy.Reasoning"), out("code", "dspy.Code['python']")],
        inputs={"question": "Q2"},
        demos=[
            {
                "question": "Q1",
                "reasoning": ("dspy", "Reasoning", {"content": "Think"}),
                "code": ("dspy", "Code", {"language": "python", "code": "print('hi')"}),
            }
        ],
        calls=[asked("[[ ## reasoning ## ]]\nso\n\n[[ ## code ## ]]\n```python\nprint(1)\n```", "", UNKNOWN)],
    ),
    "code with a schema": case(
        "question -> code: dspy.Code",
        adapter="json",
        inputs={"question": "?"},
        calls=[asked('{"code": {"code": "print(1)"}}', "", KNOWN)],
    ),
    "citations": case(
        "question -> citations: dspy.experimental.Citations",
        inputs={"question": "Q2"},
        demos=[{"question": "Q1", "citations": ("dspy", "Citations", {"citations": [CITES]})}],
        calls=[asked(f"[[ ## citations ## ]]\n{json.dumps([CITES])}", "", KNOWN)],
    ),
    "citations of the model": case(
        "question, document: dspy.experimental.Document -> answer, citations: dspy.experimental.Citations",
        inputs={"question": "?", "document": DOCUMENT},
        calls=[asked(ANSWER, "")],
    ),
    "documents in a model": path(
        "AboutDocuments",
        adapter="json",
        inputs={"document": ("dspy", "Documents", {"documents": [PLAIN_DOCUMENT, PLAIN_DOCUMENT]})},
        calls=[asked('{"text": "two"}', "", CLAUDE)],
    ),
    "a type of the user's": path(
        "AboutEvent", inputs={"event": ("dspy", "Event", {"label": "launch"})}, calls=[asked(ANSWER, "", KNOWN)]
    ),
    "everything": path(
        "KitchenSink",
        demos=[{**DEMO, "document": DOCUMENT, "profile": ORDER, "answer": ITEM}, {"question": "half", "verdict": "no"}],
        inputs={"event": ("dspy", "Event", {"label": "launch"})}
        | {name: value for name, value in DEMO.items() if name not in SUNK}
        | {"history": ("dspy", "History", {"messages": [{"question": "1", "context": ["a", "b"], **SUNK}]})},
        calls=[asked("".join(f"[[ ## {k} ## ]]\n{json.dumps(v)}\n\n" for k, v in SUNK.items()), "", KNOWN)],
    ),
    "a turn with a tool": past(turn(CALL)),
    "a turn with two tools": past(turn(CALL, {**CALL, "id": "call_2"})),
    "a turn without a question": past({"tool_calls": turn(CALL)["tool_calls"]}),
    "a turn without results": past(turn(CALL, tool_call_results=None)),
    "a turn with another's results": past(
        turn(
            CALL,
            tool_call_results=(
                "dspy",
                "ToolCallResults",
                {"tool_call_results": [{"call_id": "other", "name": "search", "value": "x"}]},
            ),
        )
    ),
    "a turn without an id": past(turn({**CALL, "id": None})),
}

REFUSED = ("citations of the model", "documents in a model", "everything")
RENDERED = ("reasoning and code", "citations", "documents in a model", "a type of the user's", "everything")


@pytest.fixture(scope="module")
def supervisor() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as running:
        running.wait_ready()
        yield running


@pytest.mark.parametrize("awaited", [False, True], ids=["called", "awaited"])
@pytest.mark.parametrize("name", CASES)
def test_what_only_a_worker_runs_is_sent_and_read_as_dspy_does(
    oracle: Oracle, supervisor: dspex.Supervisor, name: str, awaited: bool
) -> None:
    """parity: `auto` takes the worker, and there the bytes, the outputs and the error's class are DSPy's."""
    for made in in_worker(oracle, CASES[name], supervisor, awaited=awaited):
        if name in REFUSED:  # lm15 cannot word a document's block; DSPy refuses it too, unsent
            assert made["outcome"][1] == "LMUnsupportedFeatureError" and not made["bodies"]
        else:
            assert isinstance(made["outcome"], list) and len(made["bodies"]) == 1


@pytest.mark.parametrize("name", RENDERED)
def test_what_only_a_worker_renders_is_rendered_as_dspy_does(
    oracle: Oracle, supervisor: dspex.Supervisor, name: str
) -> None:
    """parity: every message, blocks of documents and of a type of the user's among them."""
    one = CASES[name]
    found = public_messages(one, one["calls"][0], supervisor)
    assert found == oracle.ask([{**one, "calls": []}])[0]["messages"]
    assert [message["role"] for message in found[:1] + found[-1:]] == ["system", "user"]


def test_reasoning_is_the_models_own_where_it_has_one(oracle: Oracle, supervisor: dspex.Supervisor) -> None:
    """parity: the output leaves the prompt, and is what the model says beside its answer."""
    for name in ("reasoning", "reasoning in json"):
        made = in_worker(oracle, CASES[name], supervisor)[0]
        assert values(made["outcome"])["reasoning"] == [("content", ("str", "'Step by step'"))]
        assert b"{reasoning}" not in made["bodies"][0]
    plain = in_worker(oracle, CASES["reasoning of a model that has none"], supervisor)[0]
    assert b"{reasoning}" in plain["bodies"][0]
    called = in_worker(oracle, CASES["reasoning with tools"], supervisor)[0]
    assert b'"tools":' in called["bodies"][0] and b'"thinking"' in called["bodies"][0]
    assert values(called["outcome"])["tool_calls"][0][:2] == ("c1", "search")


def test_past_tool_calls_are_messages_of_their_own(oracle: Oracle, supervisor: dspex.Supervisor) -> None:
    """parity: with their ids and results; those that lack either, or a question, are told otherwise."""

    def roles(name: str) -> list[str]:
        body = json.loads(in_worker(oracle, CASES[name], supervisor)[0]["bodies"][0])
        return ["+".join([m["role"], *(call["id"] for call in m.get("tool_calls", ()))]) for m in body["messages"]]

    assert roles("a turn with a tool") == ["system", "user", "assistant+call_1", "tool", "user"]
    assert roles("a turn with two tools") == ["system", "user", "assistant+call_1+call_2", "tool", "tool", "user"]
    assert roles("a turn without a question") == ["system", "assistant+call_1", "tool", "user"]
    for name in ("a turn without results", "a turn with another's results", "a turn without an id"):
        assert roles(name) == ["system", "user", "assistant", "user"]
