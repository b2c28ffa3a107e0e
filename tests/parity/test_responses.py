"""Parity: the Responses API is asked, read and refused as DSPy's own client does, on both routes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import dspex
from dspex.errors import DspexError, LMError, LMUnsupportedFeatureError
from dspex.lm.lm_client import LMClient
from dspex.testing import FakeLM, FakeReply
from tests.parity.test_lm_requests import ANSWERS, CONFIGS, CONVERSATIONS, FAILURES, MEDIA, RENAMED, SCHEMA, TOOL
from tests.support.lm.requests import ASK, Probe

pytestmark = pytest.mark.parity

MODEL = {"model": "openai/gpt-4o", "model_type": "responses"}
LOST = frozenset({"seed", "stop", "presence_penalty", "frequency_penalty"})  # refused here; DSPy leaves them out
SEE = {"type": "text", "text": "see"}
DATA = "data:application/pdf;base64,AAAA"
FILES: list[dict[str, Any]] = [
    {"type": "file", "file": {"file_data": DATA}},
    {"type": "file", "file": {"file_data": "data:image/svg+xml;base64,AAAA"}},
    {"type": "file", "file": {"file_id": "f1"}},
    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
    {"type": "image_url", "image_url": {"url": "http://h/a.png", "detail": "low"}},
]
MORE_TALKS: dict[str, list[dict[str, Any]]] = {
    **{f"media {at}": [{"role": "user", "content": [SEE, each]}] for at, each in enumerate(FILES)},
    **{f"media {at} alone": [{"role": "user", "content": [each]}] for at, each in enumerate(FILES)},
    "image from a tool": [
        *CONVERSATIONS["tool calls"][:2],
        {"role": "tool", "tool_call_id": "c1", "content": [SEE, FILES[-1]]},
    ],
    "thought and called": [
        *ASK,
        {**CONVERSATIONS["tool calls"][1], "content": "I look.", "reasoning_content": "Where?", "refusal": "No."},
        {"role": "tool", "tool_call_id": "c1", "content": ""},
    ],
}  # fmt: skip
MORE_CONFIGS: dict[str, dict[str, Any]] = {
    "logprobs alone": {"logprobs": True},
    "no tool": {"tools": [TOOL], "tool_choice": "none"},
    "any JSON": {"response_format": {"type": "json_object"}},
    "unnamed schema": {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}},
    "text": {"response_format": {"type": "text"}},
    "cached": {"prompt_cache_key": "k", "prompt_cache_retention": "24h"},
    "minimal": {"reasoning_effort": "minimal"},
    "verbose": {"verbosity": "low", "prediction": {"type": "content", "content": "x"}},
}


def test_request_bodies_equal_dspys_byte_for_byte(
    fake: Callable[..., FakeLM], client: LMClient, dspy_probe: Probe
) -> None:
    """parity: every conversation and option, as DSPy's engine writes them; what DSPy refuses, DSPex refuses."""
    server = fake("ok", **MODEL)
    talks = [(name, messages, {}) for name, messages in {**CONVERSATIONS, **MORE_TALKS}.items()]
    knobs = {name: {**config} for name, config in {**CONFIGS, **MORE_CONFIGS}.items()}
    for config in knobs.values():
        for name in LOST & {name for name, value in config.items() if value is not None}:
            del config[name]
    jobs = talks + [(name, ASK, config) for name, config in knobs.items()]
    where = {**MODEL, "api_base": server.api_base, "api_key": server.api_key}
    probed = dspy_probe([{"lm": where, "messages": messages, "config": config} for _, messages, config in jobs])
    theirs = iter([request.raw for request in server.requests])
    differences = []
    for (name, messages, config), result in zip(jobs, probed, strict=True):
        refused_by_dspy = "error" in result and result["status"] is None
        before, refused = len(server.requests), None
        try:
            client.complete(dspex.LM(**where, cache=False, retries=0), messages, config=config)
        except LMError as error:
            refused = type(error).__name__
        ours = server.requests[-1].raw if len(server.requests) > before else None
        expected = None if refused_by_dspy else next(theirs)
        if ours != expected or (refused_by_dspy and refused != result["error"]):
            differences.append((name, expected, ours, result.get("error"), refused))
    assert not differences, "\n".join(map(str, differences[:6])) + f"\n{len(differences)} of {len(jobs)}"


def test_answers_are_read_as_dspy_reads_them(fake: Callable[..., FakeLM], client: LMClient, dspy_probe: Probe) -> None:
    """parity: text, reasoning, tool calls, why it ended, and usage."""
    server = fake([*ANSWERS, *(FakeReply(body=json.dumps(body).encode()) for body in BODIES)], cycle=True, **MODEL)
    where = {**MODEL, "api_base": server.api_base, "api_key": server.api_key}
    expected = dspy_probe([{"lm": where, "messages": ASK}] * (len(ANSWERS) + len(BODIES)))
    for theirs in expected:
        ours = client.complete(dspex.LM(**where, cache=False), ASK)
        output = theirs["outputs"][0]
        assert ours.text == (output.get("text") or "")
        assert ours.reasoning[0] == output.get("reasoning_content")
        assert ours.tool_calls[0] == (output.get("tool_calls") or [])
        assert ours.usage == theirs["usage"]


def _answer(*output: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "r", "object": "response", "status": "completed", "model": "m", "output": list(output), **more}


def _said(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": list(parts)}


_TEXT = {"type": "output_text", "text": "said"}
BODIES = [
    _answer(_said(_TEXT, _TEXT), _said(_TEXT)),
    _answer(_said()),
    _answer(output_text="elsewhere"),
    _answer({"type": "reasoning", "id": "r", "summary": []}, _said(_TEXT)),
    _answer({"type": "reasoning", "summary": [{"text": "a"}, {"text": "b"}]}, {"type": "reasoning", "summary": "c"}),
    _answer({"type": "web_search_call", "id": "w"}, _said(_TEXT), {"type": "odd"}),
    _answer({"type": "function_call", "call_id": "c", "name": "look", "arguments": '{"q": 1'}),
    _answer({"type": "function_call", "id": "f", "name": "look", "arguments": ""}, _said(_TEXT)),
    _answer({"type": "function_call", "id": "f", "name": "look", "arguments": "[1]"}),
    _answer(_said(_TEXT), usage={"input_tokens": 9, "output_tokens": 4, "total_tokens": 13,
            "input_tokens_details": {"cached_tokens": 3}, "output_tokens_details": {"reasoning_tokens": 2}}),
    _answer(_said(_TEXT), status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
    _answer(_said(_TEXT, {"type": "refusal", "refusal": "but no"})),
]  # fmt: skip


def test_http_failures_become_the_classes_that_dspy_raises(
    fake: Callable[..., FakeLM], client: LMClient, dspy_probe: Probe
) -> None:
    """parity: class, status, code, provider, request id and retry_after of each kind of failure."""
    script = [FakeReply(status=s, error=e, headers={"retry-after": "3", "x-request-id": "r1"}) for s, e in FAILURES]
    server = fake(script, cycle=True, **MODEL)
    where = {**MODEL, "api_base": server.api_base, "api_key": server.api_key}
    differences = []
    for theirs in dspy_probe([{"lm": where, "messages": ASK}] * len(script)):
        with pytest.raises(LMError) as caught:
            client.complete(dspex.LM(**where, cache=False, retries=0), ASK)
        error = caught.value
        found = {name: getattr(error, name) for name in theirs if name != "error"} | {"error": type(error).__name__}
        theirs["error"] = RENAMED.get(theirs["error"], theirs["error"])
        if found["error"] == "LMContextWindowExceededError":  # known by its words too
            theirs["error"] = found["error"]
        if found != theirs:
            differences.append((theirs, found))
    assert not differences, "\n".join(map(str, differences))


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as supervisor:
        supervisor.wait_ready()
        yield supervisor


ALIKE: list[dict[str, Any]] = [
    {},
    {"temperature": 0.5, "max_tokens": 50, "top_p": 1},
    {"reasoning_effort": "low"},
    {"reasoning": {"effort": "low", "summary": "auto"}},
    {"reasoning_effort": "high", "extra_body": {"reasoning": {"summary": "auto"}, "text": {"verbosity": "low"}}},
    {"response_format": SCHEMA, "extra_body": {"text": {"verbosity": "low"}, "truncation": "auto"}},
    {"logprobs": True, "top_logprobs": 2},
    {"top_k": 3, "user": "u", "metadata": {"a": "b"}, "store": True},
    {"extra_headers": {"X-Team": "t"}, "service_tier": "flex"},
    {"prompt_cache_key": "k", "prompt_cache_retention": "24h"},
    {"seed": 1},
    {"stop": ["a"]},
    {"presence_penalty": 0.1},
    {"cache_control_injection_points": [{"location": "message", "role": "system"}]},
    {"n": 2, "temperature": 0.9},
]


@pytest.mark.parametrize("place", ["lm", "config"])
def test_both_routes_send_an_option_alike_or_refuse_it_alike(sup: dspex.Supervisor, place: str) -> None:
    """parity: plain and streamed, as options of the LM and of a program's config; bytes, headers, answers, usage."""
    differences = []
    for options in ALIKE:
        for streamed in (False, True):
            if streamed and "n" in options:
                continue
            native, python = (_asked(sup, route, options, place, streamed) for route in ("native", "python"))
            if native != python:
                differences.append((options, streamed, native, python))
    assert not differences, "\n".join(map(str, differences))


def _asked(sup: dspex.Supervisor, route: Any, options: dict[str, Any], place: str, streamed: bool) -> Any:
    lm = None
    try:
        reply = FakeReply("[[ ## answer ## ]]\nx\n\n[[ ## completed ## ]]", reasoning="because")
        lm = FakeLM(lambda _: reply, **MODEL, **(options if place == "lm" else {}))
        program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup, implementation=route)
        program = program.using(adapter="chat", config=options if place == "config" else {})
        out = list(program.stream(question="q"))[-1] if streamed else program(question="q")
        assert isinstance(out, dspex.Prediction)
        sent = [(each.path, each.raw, each.headers.get("x-team")) for each in lm.requests]
        return sent, out.toDict(), out.usage, out.finish_reason
    except DspexError as error:
        assert lm is None or not lm.requests
        return f"{type(error).__name__}: {error}"
    finally:
        if lm is not None:
            lm.close()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("route", ["native", "python"])
def test_answers_that_were_cut_or_refused_are_told(sup: dspex.Supervisor, route: Any, streamed: bool) -> None:
    """parity: 10: an incomplete response is a prediction that says so; a refusal, and a failed response, are errors."""
    cut, failed = FakeReply({"answer": "x"}, finish_reason="length"), {"code": "server_error", "message": "overloaded"}
    no: dict[str, Any] = {"type": "refusal", "refusal": "I cannot."}
    bodies = {
        "LMRefusedError": _answer(_said(no)),
        "LMServerError": _answer(status="failed", error=failed),
        "LMProviderError": _answer(status="cancelled"),
    }
    with FakeLM([cut, *(_reply(body, streamed) for body in bodies.values())], **MODEL, retries=0) as lm:
        program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup, implementation=route)

        def ask() -> Any:
            return list(program.stream(question="q"))[-1] if streamed else program(question="q")

        assert ask().finish_reason == "length"
        for name in bodies:
            with pytest.raises(LMError) as caught:
                ask()
            kinds = {kind.__name__ for kind in type(caught.value).__mro__}
            assert name in kinds, (name, caught.value)


def _reply(body: dict[str, Any], streamed: bool) -> FakeReply:
    if not streamed:
        return FakeReply(body=json.dumps(body).encode())
    refusal = [part for item in body["output"] for part in item["content"]]
    events = [{"type": "response.created", "response": {**body, "status": "in_progress", "error": None}}]
    events += [{"type": "response.refusal.delta", "output_index": 0, "delta": part["refusal"]} for part in refusal]
    events += [{"type": f"response.{body['status']}", "response": body}]
    return FakeReply(body=b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events))


@pytest.mark.parametrize("media", MEDIA)
def test_media_that_nobody_can_read_is_refused_unsent(
    media: dict[str, Any], fake: Callable[..., FakeLM], client: LMClient, dspy_probe: Probe
) -> None:
    """parity: 17: as in Chat Completions."""
    server = fake("fine", **MODEL)
    where = {**MODEL, "api_base": server.api_base, "api_key": server.api_key}
    messages = [{"role": "user", "content": [{"type": "text", "text": "hi"}, media]}]
    [theirs] = dspy_probe([{"lm": where, "messages": messages}])
    try:
        client.complete(dspex.LM(**where, cache=False, retries=0), messages)
        found = None
    except LMError as error:
        found = type(error).__name__
    assert found == theirs.get("error")


@pytest.mark.parametrize("model", ["anthropic/claude-sonnet-4-5", "groq/x", "gemini/x", "openrouter/openai/gpt-5"])
def test_other_providers_and_text_completions_are_refused_by_name(model: str) -> None:
    """unit: an API that cannot be asked is an error when the LM is made, and says how it can be."""
    with pytest.raises(LMUnsupportedFeatureError, match=r"Responses API of .*direct=True"):
        dspex.LM(model, api_key="k", model_type="responses")
    with pytest.raises(LMUnsupportedFeatureError, match=r"text completions.*direct=True"):
        dspex.LM("openai/x", api_key="k", model_type="text")
    with pytest.raises(dspex.errors.SettingsError, match="model_type must be"):
        dspex.LM("openai/x", api_key="k", model_type="respones")


def _stream(*events: dict[str, Any]) -> FakeReply:
    begun = {"type": "response.created", "response": {"id": "r", "model": "m", "status": "in_progress"}}
    return FakeReply(body=b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in (begun, *events)))


def _failed(code: str) -> dict[str, Any]:
    return _answer(status="failed", error={"code": code, "message": "said"})


PLAIN = "[[ ## answer ## ]]\nx\n\n[[ ## completed ## ]]"
ODD_ITEMS: list[Any] = [None, 3, _said(), {"type": "message", "content": None}, {"type": "reasoning", "summary": None}]
TROUBLE: list[tuple[FakeReply, bool, str]] = [
    (_stream({"type": "error", "code": "rate_limit_exceeded", "message": "slow", "param": None}), True, ""),
    (_stream({"type": "response.failed", "response": _failed("server_error")}), True, ""),
    (_stream({"type": "response.failed", "response": _failed("context_length_exceeded")}), True, "ContextWindow"),
    (_stream({"type": "response.output_text.delta", "output_index": 0, "delta": "[["}), True, "StreamAssembly"),
    (FakeReply(body=json.dumps(_answer(_said(_TEXT))).encode()), True, ""),
    (FakeReply(body=json.dumps(_failed("rate_limit_exceeded")).encode()), False, ""),
    (FakeReply(body=json.dumps(_failed("context_length_exceeded")).encode()), False, "ContextWindow"),
    (FakeReply(body=b'{"choices": [{"message": {"content": "x"}}]}'), False, "LMProviderError"),
    (
        FakeReply(body=json.dumps(_answer(*ODD_ITEMS, _said({"type": "output_text", "text": PLAIN}))).encode()),
        False,
        "",
    ),
]


@pytest.mark.parametrize("route", ["native", "python"])
@pytest.mark.parametrize(("reply", "streamed", "error"), TROUBLE)
def test_trouble_is_told_asked_again_or_read(
    sup: dspex.Supervisor, route: Any, reply: FakeReply, streamed: bool, error: str, short_pauses: None
) -> None:
    """parity: errors in bodies and events are classified and retried as in Chat Completions; odd items are none."""
    with FakeLM([reply, FakeReply(PLAIN)], **MODEL, retries=1) as lm:
        program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup, implementation=route)
        try:
            out = list(program.stream(question="q"))[-1] if streamed else program(question="q")
        except LMError as refused:
            assert error and error in type(refused).__name__
        else:
            assert isinstance(out, dspex.Prediction)
            assert not error and out.answer == "x"


@pytest.mark.parametrize("route", ["native", "python"])
def test_it_stands_behind_other_models_and_its_answers_are_cached(sup: dspex.Supervisor, route: Any) -> None:
    """parity: a chat model that fails is followed by it; plain answers and streams are kept."""
    with (
        FakeLM(lambda _: FakeReply(status=503), retries=0) as bad,
        FakeLM(lambda _: PLAIN, **MODEL, cache=True) as good,
    ):
        behind = bad.lm.replace(fallbacks=[good.lm])
        program = dspex.predictor("predict", "question -> answer", lm=behind, supervisor=sup, implementation=route)
        assert program(question="q").answer == "x"
        assert [request.path for request in good.requests] == ["/v1/responses"]
        program = program.using(lm=good)
        assert program(question="q").cached
        for _ in range(2):
            out = list(program.stream(question="q"))[-1]
        assert isinstance(out, dspex.Prediction)
        assert out.cached and len(good.requests) == 2
