"""Parity: the same bytes go out, the same answers, usage and error classes come back as with DSPy itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dspex.errors import LMError
from dspex.lm.lm_client import LMClient
from dspex.lm.record import LM
from dspex.testing import FakeLM, FakeReply
from tests.support.lm.requests import ASK, Probe
from tests.support.parity.calls import without_lost
from tests.support.parity.wire_replies import family_of

pytestmark = pytest.mark.parity

PIXEL = "data:image/png;base64,iVBORw0KGgo="
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"q": "é", "n": 1}'}}
TOOL = {
    "type": "function",
    "function": {"name": "look", "description": "Look it up.", "parameters": {"type": "object"}},
}
BARE_TOOL = {"type": "function", "function": {"name": "bare"}}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "Out",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"answer": {"type": "string"}},
            "required": ["answer"],
            "additionalProperties": False,
        },
    },
}

CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "user only": ASK,
    "system": [{"role": "system", "content": "Be brief. “é”\n\t\u2028"}, *ASK],
    "empty system": [{"role": "system", "content": ""}, *ASK],
    "empty user": [{"role": "user", "content": ""}],
    "demos": [*ASK, {"role": "assistant", "content": "4"}, {"role": "user", "content": "And 3+3?"}],
    "late system": [*ASK, {"role": "system", "content": "Be brief."}, {"role": "user", "content": "go"}],
    "blocks": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
    "one block": [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
    "system blocks": [
        {"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        *ASK,
    ],
    "image": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "see"},
                {"type": "image_url", "image_url": {"url": PIXEL}},
                {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
            ],
        }
    ],
    "tool calls": [
        *ASK,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "found"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "more"}]},
        {"role": "user", "content": "so?"},
    ],
    "said and called": [*ASK, {"role": "assistant", "content": "Let me look.", "tool_calls": [CALL]}],
    "empty assistant": [*ASK, {"role": "assistant", "content": ""}, {"role": "user", "content": "go"}],
    "assistant blocks": [*ASK, {"role": "assistant", "content": [{"type": "text", "text": "x"}]}, *ASK],
    "thought": [*ASK, {"role": "assistant", "content": "4", "reasoning_content": "2 and 2"}, *ASK],
    "refusal": [*ASK, {"role": "assistant", "content": None, "refusal": "No."}, *ASK],
}

CONFIGS: dict[str, dict[str, Any]] = {
    "int temperature": {"temperature": 0, "max_tokens": 100},
    "sampling": {"top_p": 1, "seed": 7, "temperature": 0.3, "stop": "END"},
    "penalties": {"presence_penalty": 1, "frequency_penalty": 0.5, "stop": ["a", "b"]},
    "logprobs": {"logprobs": True, "top_logprobs": 3},
    "tools": {"tools": [TOOL, BARE_TOOL], "tool_choice": "auto", "parallel_tool_calls": False},
    "forced": {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "look"}}},
    "required": {"tools": [TOOL], "tool_choice": "required"},
    "schema": {"response_format": SCHEMA},
    "passed on": {
        "logit_bias": {"50256": -100},
        "metadata": {"k": "v"},
        "user": "u1",
        "store": True,
        "service_tier": "flex",
    },
    "effort": {"reasoning_effort": "low"},
    "no effort": {"reasoning_effort": "none"},
    "nothing": {"temperature": None, "stop": None},
}

MODELS = ["openai/gpt-4o-mini", "hosted_vllm/qwen", "ollama_chat/llama3", "deepseek/deepseek-chat", "groq/llama"]
MODELS += ["openrouter/openai/gpt-4o", "xai/grok-4", "moonshot/kimi-k2"]
CLAUDES = ["anthropic/claude-sonnet-4-5", "anthropic/claude-3-5-haiku", "anthropic/claude-opus-4-6"]


def cases_for(model: str) -> list[tuple[str, list[dict[str, Any]], dict[str, Any]]]:
    talks = [(name, messages, {}) for name, messages in CONVERSATIONS.items()]
    knobs = [(name, ASK, without_lost(model, family_of(model), config)) for name, config in CONFIGS.items()]
    return talks + knobs


@pytest.mark.parametrize("models", [MODELS, CLAUDES], ids=["openai", "anthropic"])
def test_request_bodies_equal_dspys_byte_for_byte(
    models: list[str], fake: Callable[..., FakeLM], client: LMClient, dspy_probe: Probe
) -> None:
    """parity: every conversation and option, as DSPy's engine writes them; what DSPy refuses, DSPex refuses."""
    server = fake("ok")
    jobs = [(model, *case) for model in models for case in cases_for(model)]
    where = {"api_base": server.api_base, "api_key": server.api_key}
    probed = dspy_probe(
        [
            {"lm": {"model": model, **where}, "messages": messages, "config": config}
            for model, _, messages, config in jobs
        ]
    )
    theirs = [request.raw for request in server.requests]
    assert theirs, probed[:3]
    server.requests.clear()
    sent = iter(theirs)
    differences = []
    for (model, name, messages, config), result in zip(jobs, probed, strict=True):
        refused_by_dspy = "error" in result and result["status"] is None
        before = len(server.requests)
        try:
            client.complete(LM(model, cache=False, retries=0, **where), messages, config=config)
            refused = None
        except LMError as error:
            refused = type(error).__name__
        ours = server.requests[-1].raw if len(server.requests) > before else None
        expected = None if refused_by_dspy else next(sent)
        if ours != expected or (refused_by_dspy and refused != result["error"]):
            differences.append((model, name, expected, ours, result.get("error"), refused))
    assert not differences, "\n".join(map(str, differences[:6])) + f"\n{len(differences)} of {len(jobs)}"


FAILURES = [
    (401, {"message": "bad key"}),
    (403, {"message": "no"}),
    (402, {"message": "pay"}),
    (400, {"message": "bad", "type": "invalid_request_error"}),
    (400, {"message": "too long", "code": "context_length_exceeded"}),
    (400, {"message": "prompt is too long: 300000 tokens", "type": "invalid_request_error"}),
    (404, {"message": "The model `x` does not exist", "code": "model_not_found"}),
    (404, {"message": "model: x not found", "type": "not_found_error"}),
    (404, {"message": "nothing here"}),
    (408, {"message": "slow"}),
    (409, {"message": "conflict"}),
    (413, {"message": "big", "type": "request_too_large"}),
    (422, {"message": "odd"}),
    (429, {"message": "slow down", "type": "rate_limit_error"}),
    (429, {"message": "slow down", "code": "rate_limit_exceeded"}),
    (429, {"message": "no money", "code": "insufficient_quota", "type": "insufficient_quota"}),
    (429, {"message": "no money", "type": "exceeded_current_quota_error"}),
    (500, {"message": "oops", "type": "api_error"}),
    (503, {"message": "oops"}),
    (504, {"message": "slow"}),
    (529, {"message": "overloaded", "type": "overloaded_error"}),
    (418, {"message": "teapot"}),
]
RENAMED = {"ContextWindowExceededError": "LMContextWindowExceededError"}
# One provider's codes and words in another's API, which gateways mix: DSPy 3.4.1 knows them in the API of their own.
MORE_PRECISE = {
    ("openai", "LMInvalidRequestError", "LMContextWindowExceededError"),
    ("anthropic", "LMInvalidRequestError", "LMContextWindowExceededError"),
    ("anthropic", "LMInvalidRequestError", "LMUnsupportedModelError"),
    ("anthropic", "LMRateLimitError", "LMBillingError"),
}


@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5"])
def test_http_failures_become_the_classes_that_dspy_raises(
    model: str, fake: Callable[..., FakeLM], client: LMClient, dspy_probe: Probe
) -> None:
    """parity: class, status, provider code, request id and retry_after of each kind of failure."""
    script = [FakeReply(status=s, error=e, headers={"retry-after": "3", "x-request-id": "r1"}) for s, e in FAILURES]
    script += [FakeReply(status=502, body=b"<html>bad gateway</html>"), FakeReply(body=b"<html>captive</html>")]
    server = fake(script, cycle=True)
    settings = {"model": model, "api_base": server.api_base, "api_key": server.api_key}
    expected = dspy_probe([{"lm": settings, "messages": ASK}] * len(script))
    found = []
    for _ in script:
        with pytest.raises(LMError) as caught:
            client.complete(LM(**settings, cache=False, retries=0), ASK)
        error = caught.value
        found.append(
            {
                "error": type(error).__name__,
                "status": error.status,
                "provider_code": error.provider_code,
                "provider": error.provider,
                "retry_after": error.retry_after,
                "request_id": error.request_id,
            }
        )
    for result, ours in zip(expected, found, strict=True):
        result["error"] = RENAMED.get(result["error"], result["error"])
        if (model.partition("/")[0], result["error"], ours["error"]) in MORE_PRECISE:
            result["error"] = ours["error"]
    differences = [(theirs, ours) for theirs, ours in zip(expected, found, strict=True) if theirs != ours]
    assert not differences, "\n".join(map(str, differences))


ANSWERS = [
    FakeReply("plain"),
    FakeReply(""),
    FakeReply("with usage", usage={"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}),
    FakeReply("thoughtful", reasoning="because"),
    FakeReply(None, tool_calls=[("look", {"q": "é"})]),
    FakeReply("both", tool_calls=[("look", {}), ("again", {"n": 1})]),
    FakeReply("cut", finish_reason="length"),
]


@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5"])
def test_answers_are_read_as_dspy_reads_them(
    model: str, fake: Callable[..., FakeLM], client: LMClient, dspy_probe: Probe
) -> None:
    """parity: text, reasoning, tool calls and usage."""
    server = fake(ANSWERS, cycle=True)
    settings = {"model": model, "api_base": server.api_base, "api_key": server.api_key}
    expected = dspy_probe([{"lm": settings, "messages": ASK}] * len(ANSWERS))
    for theirs in expected:
        ours = client.complete(LM(**settings, cache=False), ASK)
        output = theirs["outputs"][0]
        output = output if isinstance(output, dict) else {"text": output}
        assert ours.text == (output.get("text") or "")
        assert ours.reasoning[0] == output.get("reasoning_content")
        assert ours.tool_calls[0] == (output.get("tool_calls") or [])
        assert ours.usage == theirs["usage"]


def test_capabilities_are_what_dspy_believes(dspy_probe: Probe) -> None:
    """parity: the model table's answers for known, unknown and dated names."""
    models = """openai/gpt-4o-mini openai/gpt-4o openai/o3-mini openai/gpt-5 openai/nonsense hosted_vllm/qwen groq/x
    ollama_chat/llama3 deepseek/deepseek-chat deepseek/deepseek-reasoner anthropic/claude-sonnet-4-5
    anthropic/claude-3-haiku-20240307 anthropic/claude-nova-9 openrouter/openai/gpt-4o xai/grok-4
    groq/llama-3.3-70b-versatile moonshot/kimi-k2-0905-preview""".split()
    expected = dspy_probe([{"lm": {"model": model, "api_key": "k"}, "facts": True} for model in models])
    for model, theirs in zip(models, expected, strict=True):
        lm = LM(model, api_key="k")
        ours = {
            "response_schema": lm.supports_schema,
            "function_calling": lm.supports_tools,
            "reasoning": lm.supports_reasoning,
        }
        assert ours == theirs, model


MEDIA: list[dict[str, Any]] = [
    {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
    *(
        {"type": "image_url", "image_url": {"url": url}}
        for url in (
            *("data:image/png;base64,", "data:image/png,AAAA", "data:image/png;base64,***", "data:;base64,AAAA"),
            *("data:", "", "data:image/png;base64,AAAA", "http://x/y.png"),
        )
    ),
]


@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5"])
def test_media_that_nobody_can_read_is_refused_unsent(
    model: str, fake: Callable[..., FakeLM], client: LMClient, dspy_probe: Probe
) -> None:
    """parity: empty and malformed data URIs, empty audio: refused where DSPy refuses, with its class."""
    server = fake(lambda messages: "fine")
    settings = {"model": model, "api_base": server.api_base, "api_key": server.api_key}
    asked = [[{"role": "user", "content": [{"type": "text", "text": "hi"}, part]}] for part in MEDIA]
    expected = [each.get("error") for each in dspy_probe([{"lm": settings, "messages": each} for each in asked])]
    found: list[str | None] = []
    before = len(server.requests)
    for messages in asked:
        try:
            client.complete(LM(**settings, cache=False, retries=0), messages)
        except LMError as error:
            found.append(type(error).__name__)
        else:
            found.append(None)
    assert found == expected and len(server.requests) - before == expected.count(None) and None in expected
