"""Process: several answers to one question, on both routes: at which temperature, and what they have used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import dspex
from dspex.testing import FakeLM, FakeReply

ANSWER = "[[ ## answer ## ]]\nx\n\n[[ ## completed ## ]]"
BUDGET = {"type": "enabled", "budget_tokens": 1024}
EFFORT = {"reasoning_effort": "low"}
FIXED: list[tuple[str, dict[str, Any]]] = [
    ("openai/o4-mini", {}),
    ("openai/gpt-5.1", {}),
    ("openai/o3", {}),
    ("openai/gpt-5", {"model_type": "responses"}),
    ("openrouter/openai/gpt-5.1-mini", {}),
    ("anthropic/claude-sonnet-4-5", EFFORT),
    ("anthropic/claude-sonnet-4-5", {"thinking": BUDGET}),
    ("anthropic/claude-opus-4-6", {"thinking": {"type": "adaptive"}}),
    ("anthropic/claude-sonnet-4-5", {"extra_body": {"thinking": BUDGET}}),
    ("openai/gpt-4o", {"model_type": "responses", "reasoning": {"effort": "low"}}),
]
FREE: list[tuple[str, dict[str, Any]]] = [
    ("openai/gpt-4o", {}),
    ("openai/gpt-5-chat", {}),
    ("openai/gpt-4o", {"reasoning_effort": "none"}),
    ("anthropic/claude-sonnet-4-5", {"thinking": {"type": "disabled"}}),
    ("deepseek/deepseek-chat", {}),
]


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as supervisor:
        supervisor.wait_ready()
        yield supervisor


@pytest.mark.parametrize("route", ["native", "python"])
@pytest.mark.parametrize("way", ["majority", "n"])
@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [*((model, options, None) for model, options in FIXED), *((model, options, 0.7) for model, options in FREE)],
)
def test_a_model_that_fixes_its_temperature_is_sent_none(
    sup: dspex.Supervisor, route: Any, way: str, model: str, options: dict[str, Any], expected: float | None
) -> None:
    """process: F19: of OpenAI's families, and of whatever thinks, however that is asked for."""
    with FakeLM(lambda _: ANSWER, model=model, **options) as lm:
        how: dict[str, Any] = {"lm": lm, "supervisor": sup, "implementation": route}
        if way == "majority":
            dspex.majority("question -> answer", n=2, **how)(question="q")
        else:
            dspex.predictor("predict", "question -> answer", **how).using(config={"n": 2})(question="q")
        assert [json.loads(request.raw).get("temperature") for request in lm.requests] == [expected] * 2


@pytest.mark.parametrize("route", ["native", "python"])
def test_options_of_the_call_make_it_think(sup: dspex.Supervisor, route: Any) -> None:
    """process: F19: as those of the LM."""
    for config in (EFFORT, {"extra_body": {"thinking": BUDGET}}):
        with FakeLM(lambda _: ANSWER, model="anthropic/claude-sonnet-4-5") as lm:
            program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup, implementation=route)
            program.using(config={"n": 2, **config})(question="q")
            assert ["temperature" in json.loads(request.raw) for request in lm.requests] == [False] * 2


@pytest.mark.parametrize("model_type", ["chat", "responses"])
@pytest.mark.parametrize("route", ["native", "python"])
def test_cached_choices_were_paid_before(sup: dspex.Supervisor, route: Any, model_type: str) -> None:
    """process: F13: the usage of a call is that of the choices that it asked for."""
    counted = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    with FakeLM(lambda _: FakeReply(ANSWER, usage=counted), cache=True, model_type=model_type) as lm:
        priced = lm.replace(price=(1e6, 1e6))
        program = dspex.predictor("predict", "question -> answer", lm=priced, supervisor=sup, implementation=route)
        for n, asked, tokens in ((2, 2, 10), (3, 3, 5), (3, 3, 0), (1, 3, 0), (4, 4, 5)):
            out = program.using(config={"n": n, "temperature": 0.9})(question="q")
            used = out.usage.get(lm.model, {}).get("total_tokens", 0)
            assert (len(lm.requests), used, out.cached, out.cost_usd) == (asked, tokens, tokens == 0, float(tokens))
            assert len(out.completions) == n
