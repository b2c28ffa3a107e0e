"""Process: an LM's options in workers: those of the host, of a block, and of the user's own code, all arrive."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import dspex
from dspex.errors import LMConfigurationError, LMUnsupportedFeatureError, SettingsError, UnknownName
from dspex.testing import FakeLM, FakeReply

OWN = "tests.support.programs.optioned_lms"
ANSWER = {"answer": "x"}


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    pool = dspex.PoolConfig("dspy", size=1, imports=("tests.support.programs",))
    with dspex.Supervisor(pools=[pool]) as supervisor:
        supervisor.wait_ready()
        yield supervisor


def _fake(model: str = "openai/strong-model", **options: Any) -> FakeLM:
    return FakeLM(lambda _: ANSWER, model=model, **options)


def _body(lm: FakeLM) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(lm.requests[-1].raw)
    return body


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ({"top_k": 5}, {"top_k": 5}),
        ({"extra_body": {"x": {"y": 1}}, "min_p": 0.1}, {"x": {"y": 1}, "min_p": 0.1}),
        ({"chat_template_kwargs": {"enable_thinking": False}}, {"chat_template_kwargs": {"enable_thinking": False}}),
        ({"some_new_parameter": 3}, {"some_new_parameter": 3}),
        ({"reasoning_effort": "low"}, {"reasoning_effort": "low"}),
    ],
)
@pytest.mark.parametrize("cls", ["OwnLM", "OwnPredictor"])
def test_options_of_the_users_own_code_arrive(
    sup: dspex.Supervisor, cls: str, options: dict[str, Any], sent: dict[str, Any]
) -> None:
    """process: of a dspy.LM that it makes, and of a dspy.Predict; any name, as with DSPy itself"""
    with _fake() as lm:
        program = dspex.predictor(f"{OWN}:{cls}", "question -> answer", lm=lm, supervisor=sup, **options)
        assert program(question="q").answer == "x"
        assert {name: _body(lm)[name] for name in sent} == sent
        assert "extra_body" not in _body(lm)


@pytest.mark.parametrize("cls", ["OwnLM", "OwnPredictor"])
def test_the_users_code_may_not_move_a_request(sup: dspex.Supervisor, cls: str) -> None:
    """process: only the host may say that a gateway is to take another model"""
    with _fake() as lm:
        program = dspex.predictor(f"{OWN}:{cls}", "question -> answer", lm=lm, supervisor=sup, models=["dear"])
        with pytest.raises(LMConfigurationError, match="'models'"):
            program(question="q")
        assert not lm.requests
        with _fake(models=["dear"]) as allowed:
            program.using(lm=allowed)(question="q")
            assert _body(allowed)["models"] == ["dear"]


def test_an_lm_of_the_users_code_has_the_codes_options_and_the_hosts_places(sup: dspex.Supervisor) -> None:
    """process: its own model's connection, without the options that the host has for that model's answers"""
    with _fake(top_k=9, provider={"only": ["azure"]}, extra_body={"x": 1, "models": ["a"]}) as lm:
        program = dspex.predictor(f"{OWN}:OwnLM", "question -> answer", lm=lm, supervisor=sup, min_p=0.1)
        other = program.using(lm="openai/gpt-4o-mini")
        dspex.configure(lms={"strong": lm})
        for asking in (program, other):
            asking(question="q")
            body = _body(lm)
            assert (body["min_p"], body["provider"], body["models"]) == (0.1, {"only": ["azure"]}, ["a"])
            assert not body.keys() & {"top_k", "x"}


def test_an_option_that_dspy_would_lose_is_refused_in_the_users_code_too(sup: dspex.Supervisor) -> None:
    """process: before anything is sent"""
    with _fake("anthropic/m") as lm:
        program = dspex.predictor(f"{OWN}:OwnPredictor", "question -> answer", lm=lm, supervisor=sup, seed=3)
        with pytest.raises(LMUnsupportedFeatureError, match="seed"):
            program(question="q")
        assert not lm.requests


@pytest.mark.parametrize("route", ["native", "python"])
def test_an_option_for_a_predictor_of_dspys_arrives(sup: dspex.Supervisor, route: Any) -> None:
    """process: config of the program, over the LM's, over the block's"""
    with _fake(top_k=1, min_p=0.1) as lm:
        program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup, implementation=route)
        with dspex.context(config={"top_k": 2, "repetition_penalty": 1.2}):
            program.using(config={"top_k": 3})(question="q")
        body = _body(lm)
        assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (3, 0.1, 1.2)


@pytest.mark.parametrize("route", ["native", "python"])
def test_headers_and_routing_of_a_call_go_to_its_fallbacks_too(sup: dspex.Supervisor, route: Any) -> None:
    """process: what a record alone may hold is bound to the LM and to each that stands behind it"""
    with FakeLM([FakeReply(status=503)], retries=0) as first, _fake() as second:
        lm = dspex.LM(
            first.model, api_base=first.api_base, api_key=first.api_key, retries=0, cache=False, fallbacks=second
        )
        config = {"extra_headers": {"X-Team": "t"}, "provider": {"only": ["azure"]}}
        program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup, implementation=route)
        assert program.using(config=config)(question="q").answer == "x"
        for asked in (first, second):
            assert asked.requests[-1].headers["x-team"] == "t"
            assert _body(asked)["provider"] == {"only": ["azure"]}


def test_explain_refuses_what_a_call_would(sup: dspex.Supervisor) -> None:
    """process: and says native where the call is"""
    with _fake("openrouter/openai/gpt-5", reasoning_effort="low", provider={"only": ["azure"]}) as lm:
        program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup)
        assert dspex.explain("predict", "question -> answer", lm=lm, supervisor=sup).implementation == "native"
        assert program(question="q").route == "native"
        assert _body(lm)["reasoning"] == {"effort": "low"}
        with pytest.raises((UnknownName, LMUnsupportedFeatureError), match="foo_bar"):
            dspex.explain("predict", "question -> answer", lm=lm, supervisor=sup, config={"foo_bar": 1})
        with pytest.raises(SettingsError, match="extra_body"):
            program.using(config={"extra_body": 3})


@pytest.mark.parametrize("route", ["native", "python"])
def test_schemas_are_not_sent_where_they_are_switched_off(sup: dspex.Supervisor, route: Any) -> None:
    """process: of a model that takes them"""
    for structured, kind in ((None, "json_schema"), (False, "json_object")):
        with _fake("openai/gpt-4o-mini", structured_outputs=structured) as lm:
            dspex.predict(
                "question -> answer", {"question": "q"}, lm=lm, adapter="json", implementation=route, supervisor=sup
            )
            assert _body(lm)["response_format"]["type"] == kind


def test_a_direct_lm_sends_its_headers_and_provider(sup: dspex.Supervisor) -> None:
    """process: DSPy's own client, in the worker; `provider` is OpenRouter's there too"""
    with _fake() as lm:
        direct = dspex.LM(
            "openai/x",
            api_base=lm.api_base,
            api_key=lm.api_key,
            direct=True,
            provider={"only": ["azure"]},
            extra_body={"x": 1},
        )
        assert dspex.predict("question -> answer", {"question": "q"}, lm=direct, supervisor=sup).answer == "x"
        assert (_body(lm)["provider"], _body(lm)["x"]) == ({"only": ["azure"]}, 1)
        dspex.predict(
            "question -> answer", {"question": "q"}, lm=direct.replace(headers={"X-Team": "t"}), supervisor=sup
        )
        assert lm.requests[-1].headers["x-team"] == "t"
