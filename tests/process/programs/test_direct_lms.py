"""Process: LMs that a worker's DSPy asks by itself: each option is sent, or refused before anything is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import dspex
from dspex.errors import LMUnsupportedFeatureError
from dspex.testing import FakeLM, FakeReply

ANSWER = "[[ ## answer ## ]]\nx\n\n[[ ## completed ## ]]"
CLAUDE = "anthropic/claude-sonnet-4-5"


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as supervisor:
        supervisor.wait_ready()
        yield supervisor


def _asked(sup: dspex.Supervisor, lm: FakeLM, *, streamed: bool = False, **config: Any) -> dspex.Prediction:
    program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup).using(config=config)
    out = list(program.stream(question="q"))[-1] if streamed else program(question="q")
    assert isinstance(out, dspex.Prediction)
    assert out.answer == "x" and out.route.startswith("python")
    return out


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("model", "options", "sent"),
    [
        ("openai/gpt-4o", {"top_k": 5}, {"top_k": 5}),
        ("hosted_vllm/qwen", {"top_k": 5, "extra_body": {"x": 1}}, {"top_k": 5, "x": 1}),
        (CLAUDE, {"top_k": 5}, {"top_k": 5}),
        ("openai/gpt-4o", {"seed": 1, "stop": ["a"], "user": "u"}, {"seed": 1, "stop": ["a"], "user": "u"}),
        ("openai/gpt-4o", {"chat_template_kwargs": {"a": 1}}, {"chat_template_kwargs": {"a": 1}}),
        ("openai/gpt-4o", {"reasoning_effort": "low"}, {"reasoning_effort": "low"}),
        ("openai/gpt-4o", {"model_type": "responses", "user": "u"}, {"safety_identifier": "u"}),
    ],
)
def test_options_are_sent(
    sup: dspex.Supervisor, model: str, options: dict[str, Any], sent: dict[str, Any], streamed: bool
) -> None:
    """process: plain and streamed, of the LM and of a call; LiteLLM serves what DSPy's own client would drop."""
    at_call = {name: value for name, value in options.items() if name != "model_type"}
    made = {name: value for name, value in options.items() if name == "model_type"}
    for at_lm, of_call in ((options, {}), (made, at_call)):
        with FakeLM(lambda _: ANSWER, model=model, direct=True, **at_lm) as lm:
            out = _asked(sup, lm, streamed=streamed, **of_call)
            body = json.loads(lm.requests[-1].raw)
            assert {name: body[name] for name in sent} == sent
            assert out.usage


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (CLAUDE, {"seed": 1}),
        (CLAUDE, {"logprobs": True}),
        (CLAUDE, {"frequency_penalty": 0.5}),
        ("openai/gpt-4o", {"model_type": "responses", "seed": 1}),
    ],
)
def test_an_option_that_would_be_lost_is_refused_by_name(
    sup: dspex.Supervisor, model: str, options: dict[str, Any]
) -> None:
    """process: when the LM is made, as far as the host knows the provider; else before it is sent, also of a call."""
    [name] = options.keys() - {"model_type"}
    made = {name: value for name, value in options.items() if name == "model_type"}
    with FakeLM(lambda _: ANSWER, model=model, direct=True, **made) as lm:
        with pytest.raises(LMUnsupportedFeatureError, match=name):
            _asked(sup, lm, **{name: options[name]})
        if not made:
            with pytest.raises(LMUnsupportedFeatureError, match=name):
                lm.lm.replace(**options)
        assert not lm.requests


@pytest.mark.parametrize(
    ("name", "value"), [("proxy", "http://127.0.0.1:9"), ("requests_per_minute", 60), ("cache_ttl", 3)]
)
def test_what_only_the_host_can_do_is_refused(name: str, value: Any) -> None:
    """process: a worker that connects by itself has the host's client no more."""
    with pytest.raises(LMUnsupportedFeatureError, match=f"^.*{name}.*direct=True"):
        dspex.LM("bedrock/some.model", api_key="k", direct=True, **{name: value})


@pytest.mark.parametrize("model_type", ["responses", "text"])
def test_other_apis_are_asked_by_dspy(sup: dspex.Supervisor, model_type: str) -> None:
    """process: the Responses API by DSPy's own client, text completions by LiteLLM."""
    reply: Any = ANSWER
    if model_type == "text":
        choice = {"index": 0, "text": ANSWER, "finish_reason": "stop"}
        reply = FakeReply(body=json.dumps({"id": "c", "object": "text_completion", "choices": [choice]}).encode())
    with FakeLM(lambda _: reply, model="openai/gpt-4o", model_type=model_type, direct=True) as lm:
        _asked(sup, lm)
        assert lm.requests[-1].path == ("/v1/responses" if model_type == "responses" else "/v1/completions")


def test_logprobs_and_several_answers_are_told(sup: dspex.Supervisor) -> None:
    """process: F13, F14: beside the outputs, and as usage."""
    tokens = {"content": [{"token": "x", "logprob": -0.5, "bytes": None, "top_logprobs": []}]}
    choice = {"index": 0, "message": {"content": ANSWER}, "finish_reason": "stop", "logprobs": tokens}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    body = json.dumps({"id": "c", "model": "m", "choices": [choice], "usage": usage}).encode()
    with FakeLM(lambda _: FakeReply(body=body), direct=True, logprobs=True) as lm:
        out = _asked(sup, lm, n=2)
        assert len(lm.requests) == 2 == len(out.all_logprobs) == len(out.completions)
        assert out.usage[lm.model]["total_tokens"] == 10
        assert out.logprobs == tokens and out.finish_reason == "stop"
