"""Calls with tools for the parity tests: what is asked, how, and what the model answers; imported by both sides."""

from __future__ import annotations

import enum
import random
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pydantic

from tests.support.parity.endings import Endings
from tests.support.parity.wire_replies import reply_of, stream_of, without_usage

Case = dict[str, Any]


class Unit(enum.Enum):
    """A unit."""

    CELSIUS = "c"
    KELVIN = "k"


class Spot(pydantic.BaseModel):
    """Somewhere."""

    city: str = pydantic.Field(description="its name")
    zip: int | None = None


def search(query: str, k: int = 3) -> list[str]:
    """Look it up.

    In two “paragraphs”.
    """
    return [query] * k


def weather(at: Spot, unit: Unit = Unit.CELSIUS, step: Decimal = Decimal("0.5"), **more: Any) -> str:
    return f"{at.city} {unit.value} {step} {sorted(more)}"


def untyped(a, b=None):  # type: ignore[no-untyped-def]
    """Anything."""
    return a, b


class Clock:
    """Tells the time."""

    def __call__(self, zone: str, *, exact: bool = False) -> str:
        return zone


TOOLS: Mapping[str, Any] = {"search": search, "weather": weather, "untyped": untyped, "clock": Clock()}

SIGNATURES = (
    "question, tools: list[dspy.Tool] -> tool_calls: dspy.ToolCalls",
    "question, tools: list[dspy.Tool] -> answer, tool_calls: dspy.ToolCalls",
    "question, tool: dspy.Tool -> tool_calls: dspy.ToolCalls, answer: str, note: Optional[str]",
    "question, history: dspy.History, tools: list[dspy.Tool] -> answer, tool_calls: dspy.ToolCalls",
    "question, tools: list[dspy.Tool] -> answer, score: float",
    "question -> tool_calls: dspy.ToolCalls",
    "question, tools: list[dspy.Tool] -> calls: list[dspy.ToolCalls]",
    "question, past: dspy.ToolCalls, results: dspy.ToolCallResults -> answer",
)
MODELS = ("openai/gpt-4o-mini", "openai/fake", "anthropic/claude-sonnet-4-5", "hosted_vllm/qwen")
CONFIGS: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"parallel_tool_calls": True},
    {"parallel_tool_calls": False, "temperature": 0.3},
    {"tool_choice": "required"},
    {"tools": [{"type": "function", "function": {"name": "own", "description": "", "parameters": {"type": "object"}}}]},
)
WANTED = {"tool_calls": [{"name": "search", "args": {"query": "é", "k": 2}}, {"name": "clock", "args": {}}]}
ASKED = (("search", {"query": "cats “é”", "k": 1}), ("weather", {"at": {"city": "Rome"}}))
# Each is what FakeReply takes; a dict is worded in the format that the request asks for.
REPLIES: tuple[dict[str, Any], ...] = (
    {"tool_calls": ASKED[:1]},
    {"tool_calls": ASKED},
    {"tool_calls": ASKED, "text": {"answer": "Looking.", "score": 1}},
    {"tool_calls": ASKED[:1], "text": "Let me look."},
    {"text": {"answer": "yes", "tool_calls": WANTED, "note": None, "score": 0.5, "calls": [WANTED]}},
    {"text": {"answer": "yes", "tool_calls": WANTED["tool_calls"], "calls": []}},
    {
        "text": {
            "answer": "yes",
            "tool_calls": {"name": "search", "args": '{"query": "x"}'},
            "calls": [WANTED["tool_calls"]],
        }
    },
    {"text": {"answer": "yes"}},
    {"text": {"tool_calls": "none", "answer": ""}},
    {"text": "I do not know."},
    {"text": ""},
)


def cases(seed: int, count: int) -> list[Case]:
    """Random cases; the same seed, the same cases."""
    rng = random.Random(seed)
    return [_case(rng, number) for number in range(count)]


def _reply(rng: random.Random, is_anthropic: bool, streamed: bool) -> dict[str, Any]:
    """What FakeReply takes: one of the above, or a whole body with calls that are cut short, or none at all."""
    if rng.random() < 0.65:
        return rng.choice(REPLIES)
    endings = Endings(rng)
    made = {"text": rng.choice((None, "", "Let me look.")), "calls": endings.tool_calls()}
    others = (made, made, {**made, "finish": "length"}, endings.ending("[[ ## answer ## ]]\nyes", is_anthropic))
    chosen = without_usage(rng.choice(others))
    status, body = (stream_of if streamed else reply_of)(chosen, "anthropic" if is_anthropic else "openai")
    return {"status": status, "body": body, "ending": chosen}


def _case(rng: random.Random, number: int) -> Case:
    model, streamed = rng.choice(MODELS), rng.random() < 0.2
    text = rng.choice((*SIGNATURES, SIGNATURES[3], SIGNATURES[1]))
    fields = [part.partition(":")[0].strip() for part in text.partition("->")[0].split(",")]
    values = {name: _value(name, rng) for name in fields}
    values["question"] = f"#{number}# {values['question']}"  # by which the model's endpoint knows the case
    return {
        "signature": text,
        "inputs": values,
        "demos": [_demo(rng, text) for _ in range(rng.choice((0, 0, 1, 2)))],
        "adapter": rng.choice(("chat", "json")),
        "native": rng.choice((None, True, True, False)),
        "model": model,
        "config": dict(rng.choice(CONFIGS)),
        "replies": [_reply(rng, model.startswith("anthropic/"), streamed) for _ in range(2)],
        "streamed": streamed,
    }


def _value(name: str, rng: random.Random) -> Any:
    if name == "tools":
        return [("tool", each) for each in rng.sample(sorted(TOOLS), rng.choice((0, 1, 2, 3)))]
    if name == "tool":
        return ("tool", rng.choice(sorted(TOOLS)))
    if name == "history":
        return ("history", [_turn(rng) for _ in range(rng.choice((0, 1, 2, 3)))])
    if name == "past":
        return ("calls", _calls(rng), _results(rng))
    if name == "results":
        return ("results", _results(rng) or [])
    return rng.choice(("What?", "Wo ist “Köln”?\nSag es.", ""))


def _demo(rng: random.Random, text: str) -> dict[str, Any]:
    demo: dict[str, Any] = {"question": "earlier", "answer": "before", "note": None, "score": 1.0}
    if "tools:" in text:
        demo["tools"] = [("tool", "search")]
    if rng.random() < 0.7:
        demo["tool_calls"] = rng.choice((("calls", _calls(rng), None), WANTED))
    for name in rng.sample(sorted(demo), rng.choice((0, 0, 1))):
        del demo[name]
    return demo


def _turn(rng: random.Random) -> dict[str, Any]:
    turn: dict[str, Any] = {"question": "then", "answer": rng.choice(("said", "", None))}
    calls, results = _calls(rng), _results(rng)
    if rng.random() < 0.7:
        turn["tool_calls"] = rng.choice(
            (("calls", calls, results), {"tool_calls": calls, "tool_call_results": results})
        )
    if rng.random() < 0.3:
        del turn["question"]
    return turn


def _calls(rng: random.Random) -> list[dict[str, Any]]:
    calls = [{"name": "search", "args": {"query": "é", "deep": {"n": [1]}}}, {"name": "clock", "args": {}}]
    with_ids = [{"id": f"c{at}", **call} for at, call in enumerate(calls)]
    return rng.choice((calls, with_ids, with_ids, with_ids, with_ids[:1], []))


def _results(rng: random.Random) -> list[dict[str, Any]] | None:
    results = [
        {"call_id": "c0", "name": "search", "value": ["a", {"b": 1.5}], "is_error": False},
        {"call_id": "c1", "name": "clock", "value": "noon", "is_error": True},
    ]
    return rng.choice((None, results, results, results[:1], list(reversed(results)), []))


def values(given: Any, types: Any) -> Any:
    """A case's value with the tools, calls, results and histories of one side's types."""
    if isinstance(given, tuple):
        kind, *rest = given
        if kind == "tool":
            return types.Tool(TOOLS[rest[0]])
        if kind == "history":
            return types.History(messages=values(rest[0], types))
        if kind == "results":
            return types.ToolCallResults.model_validate(rest[0])
        results = None if rest[1] is None else types.ToolCallResults.model_validate(rest[1])
        return types.ToolCalls(
            tool_calls=[types.ToolCalls.ToolCall(**each) for each in rest[0]], tool_call_results=results
        )
    if isinstance(given, dict):
        return {key: values(item, types) for key, item in given.items()}
    return [values(item, types) for item in given] if isinstance(given, list) else given


def plain(value: Any) -> Any:
    """Outputs as plain data, equal on both sides exactly when they are alike."""
    if hasattr(value, "tool_calls"):
        return ["ToolCalls", [[call.id, call.name, plain(call.args)] for call in value.tool_calls]]
    if isinstance(value, dict):
        return [[key, plain(item)] for key, item in value.items()]
    return [plain(item) for item in value] if isinstance(value, list) else [type(value).__name__, repr(value)]
