"""Parity: an option of an LM arrives as DSPy sends it, by lm15 or by LiteLLM, and alike from both routes."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import dspex
from dspex.errors import DspexError
from dspex.lm.lm_client import LMClient
from dspex.testing import FakeLM
from tests.support.lm.requests import ASK, Probe

pytestmark = pytest.mark.parity

OPENAI = ["openai/gpt-4o-mini", "hosted_vllm/qwen", "groq/llama", "openrouter/openai/gpt-5"]
BY_BOTH = [
    "openai/gpt-4o-mini",
    "hosted_vllm/qwen",
    "openrouter/openai/gpt-5",
]  # LiteLLM reads others' replies otherwise
EVERY = [*OPENAI, "deepseek/deepseek-chat", "xai/grok-4", "moonshot/kimi-k2", "ollama_chat/llama3"]
CLAUDES = ["anthropic/claude-sonnet-4-5", "anthropic/claude-opus-4-6"]
MARKS = [{"location": "message", "role": "system"}]
BUDGET = {"type": "enabled", "budget_tokens": 2048}

BY_LM15: list[tuple[str, dict[str, Any]]] = [
    *((model, {"seed": 7, "stop": ["a", "b"]}) for model in EVERY),
    *((model, {"provider": {"only": ["azure"]}}) for model in EVERY),
    *((model, {"logit_bias": {"5": -1}, "verbosity": "low", "service_tier": "flex"}) for model in EVERY),
    *((model, {"response_format": {"type": "json_object"}}) for model in EVERY),
    *((model, {"reasoning_effort": effort}) for model in EVERY for effort in ("low", "high") if "router" not in model),
    *((model, {"logprobs": True, "top_logprobs": 2}) for model in OPENAI),
    ("openai/gpt-4o-mini", {"prompt_cache_key": "k", "user": "u", "store": False}),
    ("openrouter/openai/gpt-5", {"prompt_cache_key": "k"}),
    *((model, {"top_k": 5, "top_p": 0.5}) for model in CLAUDES),
    *((model, {"reasoning_effort": "medium"}) for model in CLAUDES),
    *((model, {"user": "u", "metadata": {"user_id": "v"}}) for model in CLAUDES),
]
BY_LITELLM: list[tuple[str, dict[str, Any]]] = [
    *((model, {"top_k": 5}) for model in BY_BOTH),
    *((model, {"min_p": 0.1, "repetition_penalty": 1.1}) for model in BY_BOTH),
    *((model, {"chat_template_kwargs": {"enable_thinking": False}}) for model in BY_BOTH),
    *((model, {"extra_body": {"guided_choice": ["a"], "x": {"y": 1}}}) for model in BY_BOTH),
    ("hosted_vllm/qwen", {"prompt_cache_key": "k"}),
    ("openrouter/openai/gpt-5", {"models": ["a/b", "c/d"], "transforms": ["middle-out"]}),
    ("anthropic/claude-sonnet-4-5", {"thinking": BUDGET}),
    ("anthropic/claude-sonnet-4-5", {"cache_control_injection_points": MARKS}),
]
_OF_LITELLM = {"max_tokens", "stream", "usage"}  # its own limit of tokens, and what it asks OpenRouter for


def _sent(raw: bytes, *, by_litellm: bool) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(raw)
    del body["messages"]  # worded otherwise by LiteLLM
    if isinstance(body.get("system"), list) and "cache_control" not in body["system"][-1]:
        body["system"] = body["system"][0]["text"]
    return {name: value for name, value in body.items() if not (by_litellm and name in _OF_LITELLM)}


@pytest.mark.parametrize("engine", ["lm15", "litellm"])
def test_options_arrive_as_dspy_sends_them(
    engine: str, fake: Callable[..., FakeLM], client: LMClient, dspy_probe: Probe
) -> None:
    """parity: all that is neither worded by the other engine nor lost by it."""
    if engine == "litellm" and importlib.util.find_spec("litellm") is None:
        pytest.skip("LiteLLM is not installed")
    cases = BY_LM15 if engine == "lm15" else BY_LITELLM
    messages = [{"role": "system", "content": "Be brief."}, *ASK]
    server, claude = fake("ok"), fake("ok", model="anthropic/x")
    jobs = []
    for model, options in cases:
        there = claude if model.startswith("anthropic") else server
        base = there.api_base.removesuffix("/v1") if engine == "litellm" and there is claude else there.api_base
        lm = {"model": model, "api_base": base, "api_key": there.api_key}
        jobs.append({"lm": lm, "messages": messages, "config": options, "engine": engine})
    probed = dspy_probe(jobs)
    theirs = {id(there): iter([request.raw for request in there.requests]) for there in (server, claude)}
    differences = []
    for (model, options), result in zip(cases, probed, strict=True):
        there = claude if model.startswith("anthropic") else server
        assert "error" not in result, (model, options, result)
        lm = dspex.LM(model, api_base=there.api_base, api_key=there.api_key, cache=False, **options)
        client.complete(lm, messages)
        ours = _sent(there.requests[-1].raw, by_litellm=engine == "litellm")
        expected = _sent(next(theirs[id(there)]), by_litellm=engine == "litellm")
        if ours != expected:
            differences.append((model, options, expected, ours))
    assert not differences, "\n".join(map(str, differences))


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as supervisor:
        supervisor.wait_ready()
        yield supervisor


ALIKE: list[dict[str, Any]] = [
    {"top_k": 5},
    {"min_p": 0.1, "top_p": 0.5, "repetition_penalty": 1.1},
    {"chat_template_kwargs": {"enable_thinking": False}},
    {"reasoning_effort": "low"},
    {"reasoning_effort": "none"},
    {"thinking": BUDGET},
    {"extra_body": {"x": 1, "models": ["a"]}, "seed": 3},
    {"extra_headers": {"X-Team": "t"}},
    {"provider": {"only": ["azure"]}, "verbosity": "low"},
    {"models": ["a", "b"]},
    {"cache_control_injection_points": [*MARKS, {"location": "message", "index": -1}]},
    {"prompt_cache_key": "k", "prompt_cache_retention": "in_memory"},
    {"user": "u", "metadata": {"a": "b"}},
    {"response_format": {"type": "json_object"}},
    {"logprobs": True, "top_logprobs": 1},
    {"stop": ["a"], "service_tier": "flex", "store": True},
    {"structured_outputs": False},
    {"foo_bar": 1},
    {"extra_body": {"model": "dear"}},
]


@pytest.mark.parametrize("place", ["lm", "config", "context"])
@pytest.mark.parametrize("model", [*EVERY, *CLAUDES])
def test_both_routes_send_an_option_alike_or_refuse_it_alike(sup: dspex.Supervisor, model: str, place: str) -> None:
    """parity: as an option of the LM, of a program's config, and of a block's; the bytes and the headers."""
    differences = []
    for options in ALIKE:
        if place != "lm" and "structured_outputs" in options:
            continue
        native, python = (_asked(sup, route, model, options, place) for route in ("native", "python"))
        if native != python:
            differences.append((options, native, python))
        if not (isinstance(native, str) or place == "lm" or all(_arrived(native, name) for name in options)):
            differences.append((options, native, "lost"))
    assert not differences, "\n".join(map(str, differences))


def _asked(sup: dspex.Supervisor, route: Any, model: str, options: dict[str, Any], place: str) -> Any:
    """The request that arrives, or how it is refused before anything is sent."""
    lm = None
    try:
        lm = FakeLM(lambda _: {"answer": "x"}, model=model, **(options if place == "lm" else {}))
        program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup, implementation=route)
        program = program.using(adapter="chat", config=options if place == "config" else {})
        with dspex.context(config=options if place == "context" else None):
            program(question="q")
        return lm.requests[-1].raw, lm.requests[-1].headers.get("x-team")
    except DspexError as error:
        assert lm is None or not lm.requests
        return f"{type(error).__name__}: {error}"
    finally:
        if lm is not None:
            lm.close()


_SPELLED = {"extra_body": "x", "reasoning_effort": "", "stop": "", "user": ""}  # otherwise, or by each in its own way


def _arrived(request: tuple[bytes, str | None], option: str) -> bool:
    body, team = json.loads(request[0]), request[1]
    spelled = _SPELLED.get(option, option)
    if option == "extra_headers":
        return team == "t"
    if option == "cache_control_injection_points":
        return request[0].count(b'"cache_control":{"type":"ephemeral"}') == 2
    return not spelled or spelled in body
