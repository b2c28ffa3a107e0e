"""Parity: Anthropic's cache marks and thinking arrive as from DSPy, and are read as by DSPy, on both routes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import dspex
from dspex.errors import DspexError, LMUnsupportedFeatureError
from dspex.lm.lm_client import LMClient
from dspex.testing import FakeLM, FakeReply
from tests.support.lm.requests import Probe

pytestmark = pytest.mark.parity

MODELS = ["anthropic/claude-sonnet-4-5", "anthropic/claude-opus-4-6", "anthropic/claude-3-5-haiku"]
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": [{"type": "text", "text": "c"}, {"type": "text", "text": "d"}]},
]
FUNCTION = {"name": "look", "description": "d", "parameters": {"type": "object", "properties": {}}}
TOOLS = [{"type": "function", "function": FUNCTION}, {"type": "function", "function": {**FUNCTION, "name": "more"}}]
TOOL_POINT = {"location": "tool_config"}


def _at(**point: Any) -> dict[str, Any]:
    return {"location": "message", **point}


POINTS: dict[str, list[dict[str, Any]]] = {
    "system": [_at(role="system")],
    "users": [_at(role="user")],
    "assistant": [_at(role="assistant")],
    "first": [_at(index=0)],
    "second": [_at(index=1)],
    "last": [_at(index=-1)],
    "third last": [_at(index=-3)],
    "texts": [_at(index="-1"), _at(index="1")],
    "out of range": [_at(index=9), _at(index=-9)],
    "with a time": [_at(role="system", control={"type": "ephemeral", "ttl": "1h"})],
    "place before role": [_at(role="user", index=0)],
    "several": [_at(role="system"), _at(role="user"), _at(index=-1)],
    "tools": [TOOL_POINT],
    "tools and system": [_at(role="system"), TOOL_POINT],
    "nobody": [_at()],
}


def _normal(raw: bytes) -> dict[str, Any]:
    """A body without what LiteLLM words in its own way: limits, names of kinds, a system prompt as text."""
    body: dict[str, Any] = json.loads(raw)
    system = body.get("system")
    body["system"] = [{"type": "text", "text": system}] if isinstance(system, str) else system
    tools = [{name: tool[name] for name in sorted(tool) if name != "type"} for tool in body.get("tools") or ()]
    return {name: body.get(name) for name in ("system", "messages", "thinking", "output_config")} | {"tools": tools}


@pytest.mark.parametrize("model", MODELS[:2])
def test_marks_stand_where_dspys_default_client_puts_them(
    model: str, fake: Callable[..., FakeLM], client: LMClient, dspy_probe: Probe
) -> None:
    """parity: by role, by place from either end, as texts, with a time to live, on tools."""
    pytest.importorskip("litellm")
    server = fake("ok", model=model)
    where = {"model": model, "api_base": server.api_base.removesuffix("/v1"), "api_key": server.api_key}
    configs = [{"cache_control_injection_points": points, "tools": TOOLS} for points in POINTS.values()]
    probed = dspy_probe([{"lm": where, "messages": TALK, "config": each, "engine": "litellm"} for each in configs])
    theirs = [_normal(request.raw) for request in server.requests]
    assert len(theirs) == len(configs), probed
    for config, its in zip(configs, theirs, strict=True):
        lm = dspex.LM(model, api_base=server.api_base, api_key=server.api_key, cache=False)
        client.complete(lm, TALK, config=config)
        assert _normal(server.requests[-1].raw) == its, config


@pytest.mark.parametrize("model", MODELS)
def test_efforts_are_worded_as_by_dspy(
    model: str, fake: Callable[..., FakeLM], client: LMClient, dspy_probe: Probe
) -> None:
    """parity: a budget above max_tokens, or an adaptive thinking, by the model's family."""
    server = fake("ok", model=model)
    where = {"model": model, "api_base": server.api_base, "api_key": server.api_key}
    efforts = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
    configs = [{"reasoning_effort": e, **more} for e in efforts for more in ({}, {"max_tokens": 500})]
    dspy_probe([{"lm": where, "messages": TALK, "config": config} for config in configs])
    theirs = [request.raw for request in server.requests]
    assert len(theirs) == len(configs)
    for config, expected in zip(configs, theirs, strict=True):
        client.complete(dspex.LM(**where, cache=False), TALK, config=config)
        assert server.requests[-1].raw == expected, config


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as supervisor:
        supervisor.wait_ready()
        yield supervisor


ALIKE: list[dict[str, Any]] = [
    {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000, "n": 2},
    {"thinking": {"type": "adaptive"}},
    {"thinking": {"type": "disabled"}, "temperature": 0.3},
    {"reasoning_effort": "medium", "max_tokens": 100},
    {"tools": TOOLS, "cache_control_injection_points": [TOOL_POINT, _at(role="system"), _at(index="-1")]},
    {"cache_control_injection_points": [{"location": "elsewhere"}]},
]


@pytest.mark.parametrize("place", ["lm", "config"])
@pytest.mark.parametrize("streamed", [False, True])
def test_both_routes_send_and_read_alike(sup: dspex.Supervisor, streamed: bool, place: str) -> None:
    """parity: the same bytes, answers, usage; thinking is read apart from the answer, plain and streamed."""
    differences = []
    for options in ALIKE:
        if not (streamed and "n" in options):
            native, python = (_asked(sup, route, options, place, streamed) for route in ("native", "python"))
            if native != python:
                differences.append((options, native, python))
    assert not differences, "\n".join(map(str, differences))


def _asked(sup: dspex.Supervisor, route: Any, options: dict[str, Any], place: str, streamed: bool) -> Any:
    lm = None
    try:
        reply = FakeReply("[[ ## answer ## ]]\nx\n\n[[ ## completed ## ]]", reasoning="I think, so I am.")
        lm = FakeLM(lambda _: reply, model=MODELS[0], **(options if place == "lm" else {}))
        program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup, implementation=route)
        program = program.using(adapter="chat", config=options if place == "config" else {})
        out = list(program.stream(question="q"))[-1] if streamed else program(question="q")
        assert isinstance(out, dspex.Prediction)
        return [each.raw for each in lm.requests], out.toDict(), out.usage, out.finish_reason
    except DspexError as error:
        assert lm is None or not lm.requests
        return f"{type(error).__name__}: {error}"
    finally:
        if lm is not None:
            lm.close()


def test_marks_that_no_server_reads_are_refused_by_name() -> None:
    """unit: on tools, by OpenAI's API; on a tool itself, which DSPy's client has no place for."""
    with pytest.raises(LMUnsupportedFeatureError, match="'tool_config'"):
        dspex.LM("openai/x", api_key="k", cache_control_injection_points=[TOOL_POINT])
    with pytest.raises(LMUnsupportedFeatureError, match="'tool_config'"):
        dspex.LM(MODELS[0], api_key="k", tools=[{**TOOLS[0], "cache_control": {"type": "ephemeral"}}])
    lm = dspex.LM(MODELS[0], api_key="k", cache_control_injection_points=[TOOL_POINT])
    assert lm.cache_marks == [TOOL_POINT]


def test_a_thought_is_a_reasoning_output(sup: dspex.Supervisor) -> None:
    """process: of a signature with a Reasoning, plain and streamed, with the budget that is asked for"""
    options: dict[str, Any] = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    with FakeLM(lambda _: FakeReply({"answer": "x"}, reasoning="I think."), model=MODELS[0], **options) as lm:
        program = dspex.predictor("predict", "question -> why: dspy.Reasoning, answer", lm=lm, supervisor=sup)
        assert program(question="q").why == "I think."
        out = list(program.stream(question="q"))[-1]
        assert isinstance(out, dspex.Prediction)
        assert out.why == "I think."
        assert all(json.loads(request.raw)["thinking"] == options["thinking"] for request in lm.requests)


def test_an_agent_goes_on_after_it_has_thought(sup: dspex.Supervisor) -> None:
    """process: DSPy replays no signed thoughts: the next request holds the call and its result"""

    def look(place: str) -> str:
        """Look."""
        return f"nothing {place}"

    replies = [
        FakeReply(None, reasoning="I think.", tool_calls=[("look", {"place": "here"})]),
        FakeReply(
            "[[ ## answer ## ]]\nx\n\n[[ ## completed ## ]]", reasoning="So.", tool_calls=[("submit", {"answer": "x"})]
        ),
        FakeReply({"answer": "x"}),
    ]
    options: dict[str, Any] = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    with FakeLM(replies, model=MODELS[0], **options) as lm:
        agent = dspex.predictor("react_v2", "question -> answer", tools=[look], lm=lm, supervisor=sup, adapter="json")
        assert agent(question="q").answer == "x"
        again = json.loads(lm.requests[1].raw)["messages"]
        kinds = [block["type"] for row in again for block in row["content"]]
        assert "tool_use" in kinds and "tool_result" in kinds and "thinking" not in kinds
