"""Collaboration: endpoints that misbehave, asked natively and by a real worker: the same error, and no key in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import dspex
from dspex.errors import (
    LMAuthError,
    LMConfigurationError,
    LMEmptyStreamError,
    LMError,
    LMProviderError,
    LMRateLimitError,
    LMServerError,
    LMStreamAssemblyError,
    ToolFailed,
)
from dspex.pools.supervisor import Supervisor
from dspex.testing import FakeLM, FakeReply

CALLING = {"use_native_function_calling": True}
ROUTES = ("native", "python")
QA = ("question -> answer", {"question": "x"})
Body = Callable[[str], bytes]


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _event(value: Any) -> bytes:
    return b"data: " + _json(value) + b"\n\n"


BODIES: dict[str, tuple[Body, type[LMError]]] = {
    "object": (lambda key: _json({"error": {"code": 502, "message": f"refused Bearer {key}"}}), LMServerError),
    "code": (lambda key: _json({"error": {"code": 429, "message": f"slow {key}"}}), LMRateLimitError),
    "text": (lambda key: _json({"error": f"CUDA out of memory {key}"}), LMServerError),
    "vllm": (lambda key: _json({"object": "error", "message": f"who is {key}", "code": 401}), LMAuthError),
    "anthropic": (lambda key: _json({"type": "error", "error": {"type": "rate_limit_error"}}), LMRateLimitError),
    "choice": (lambda key: _json({"choices": [{"error": {"code": "429", "message": key}}]}), LMRateLimitError),
    "detail": (lambda key: _json({"detail": f"loading {key}"}), LMServerError),
    "page": (lambda key: f"<html>{key}</html>".encode(), LMProviderError),
    "nothing": (lambda key: b"", LMProviderError),
    "no answer": (lambda key: b"{}", LMProviderError),
}
EVENTS: dict[str, tuple[Body, type[LMError]]] = {
    "object": (lambda key: _event({"error": {"code": 429, "message": f"slow {key}"}}), LMRateLimitError),
    "text": (lambda key: _event({"error": f"CUDA out of memory {key}"}), LMServerError),
    "named": (lambda key: f"event: error\ndata: CUDA {key}\n\n".encode(), LMServerError),
    "empty": (lambda key: b"", LMEmptyStreamError),
    "whole": (lambda key: _json({"choices": [{"message": {"content": key}}]}), LMEmptyStreamError),
    "cut": (lambda key: _event({"choices": [{"delta": {"content": f"half {key}"}}]}), LMStreamAssemblyError),
}


@pytest.fixture(scope="module")
def supervisor() -> Iterator[Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as running:
        running.wait_ready()
        yield running


@pytest.fixture(params=ROUTES)
def route(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _caught(ask: Callable[[], Any], lm: FakeLM) -> LMError:
    """The error of a call; the key is nowhere in it nor in those behind it."""
    with pytest.raises(LMError) as caught:
        ask()
    error: BaseException | None = caught.value
    while error is not None:
        assert str(lm.api_key) not in f"{error} {error!r} {vars(error)}"
        error = error.__cause__ or error.__context__
    return caught.value


@pytest.mark.parametrize("name", BODIES)
def test_error_in_a_success_is_the_same_on_both_routes(name: str, route: str, supervisor: Supervisor) -> None:
    """collaboration: each envelope, its class, one request."""
    make, kind = BODIES[name]
    with FakeLM(lambda messages: FakeReply(body=make(str(lm.api_key))), retries=0) as lm:
        ask = {"lm": lm, "adapter": "chat", "implementation": route, "supervisor": supervisor}
        error = _caught(lambda: dspex.predict(*QA, **ask), lm)
        assert type(error) is kind and len(lm.requests) == 1


@pytest.mark.parametrize("name", EVENTS)
def test_error_in_a_stream_is_the_same_on_both_routes(name: str, route: str, supervisor: Supervisor) -> None:
    """collaboration: before an answer began, and after."""
    make, kind = EVENTS[name]
    with FakeLM(lambda messages: FakeReply(body=make(str(lm.api_key))), retries=0) as lm:
        ask = {"lm": lm, "adapter": "chat", "implementation": route, "supervisor": supervisor}
        error = _caught(lambda: list(dspex.predict_stream(*QA, **ask)), lm)
        assert type(error) is kind and len(lm.requests) == 1


def test_half_a_surrogate_pair_in_a_stream_is_shown(route: str, supervisor: Supervisor) -> None:
    """collaboration: JSON can hold one, and no message of a worker's."""
    pieces = ["[[ ## answer ## ]]\n", "half \ud83d", " a pair\n", "[[ ## completed ## ]]"]
    body = b"".join(_event({"choices": [{"index": 0, "delta": {"content": piece}}]}) for piece in pieces)
    body += _event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    with FakeLM(lambda messages: FakeReply(body=body)) as lm:
        ask = {"lm": lm, "adapter": "chat", "implementation": route, "supervisor": supervisor}
        *chunks, last = dspex.predict_stream(*QA, **ask)
        assert "".join(chunk.text for chunk in chunks) == last.answer == "half \ud83d a pair"


def test_error_in_a_success_is_retried_and_falls_over(route: str, supervisor: Supervisor) -> None:
    """collaboration: a rate limit is waited for, then the next LM is asked."""
    busy = FakeReply(body=_json({"error": {"code": "429", "message": "slow"}}), headers={"retry-after": "0.01"})
    with FakeLM([{"answer": "Paris"}], model="openai/backup") as backup, FakeLM([busy] * 3, retries=2) as first:
        lm = first.replace(fallbacks=[backup.lm], api_key=first.api_key)
        out = dspex.predict(*QA, lm=lm, implementation=route, supervisor=supervisor)
        assert out.answer == "Paris" and (len(first.requests), len(backup.requests)) == (3, 1)


def test_model_is_the_records_on_both_routes(route: str, supervisor: Supervisor) -> None:
    """collaboration: a call's config names no other."""
    with FakeLM("x") as lm:
        for model in ("another", "openai/another"):
            ask = {"lm": lm, "config": {"model": model}, "implementation": route, "supervisor": supervisor}
            with pytest.raises(LMConfigurationError, match="model"):
                dspex.predict(*QA, **ask)
        assert not lm.requests


def remove(table: str = "all", where: str = "true") -> str:
    """Remove rows."""
    raise AssertionError(f"ran with {table}, {where}")


@pytest.mark.parametrize("model", ["openai/fake", "anthropic/fake"])
@pytest.mark.parametrize("arguments", ['{"table": "users", "where": "id = 4', "table=users"])
def test_cut_tool_arguments_are_the_same_on_both_routes(
    arguments: str, model: str, route: str, supervisor: Supervisor
) -> None:
    """collaboration: kept as DSPy keeps them, and no tool runs with its defaults."""
    if model.startswith("openai"):
        call = {"id": "c", "type": "function", "function": {"name": "remove", "arguments": arguments}}
        body = {"choices": [{"message": {"role": "assistant", "tool_calls": [call]}, "finish_reason": "length"}]}
    else:
        block = {"type": "tool_use", "id": "c", "name": "remove", "input": arguments}
        body = {"type": "message", "role": "assistant", "content": [block], "stop_reason": "max_tokens"}
    with FakeLM(lambda messages: FakeReply(body=_json(body)), model=model, function_calling=True) as lm:
        signature = dspex.signature("question, tools: list[dspy.Tool] -> calls: dspy.ToolCalls")
        tools = [dspex.Tool(remove)]
        adapter = "json" if model.startswith("openai") else "chat"  # Anthropic has no any-JSON mode
        ask = {"lm": lm, "adapter": adapter, "implementation": route, "supervisor": supervisor, **CALLING}
        out = dspex.predict(signature, {"question": "x", "tools": tools}, **ask)
        (made,) = out.calls.tool_calls
        assert made.args == {"partial_json": arguments}
        with pytest.raises(ToolFailed):
            made.execute(tools)
