"""Unit: every option is sent, or refused when the LM is made: none is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from dspex.errors import (
    LMConfigurationError,
    LMUnsupportedFeatureError,
    SettingsError,
    UnknownName,
)
from dspex.lm.lm_client import LMClient
from dspex.lm.lm_options import GENERATION_OPTIONS
from dspex.lm.named_lms import lm_of_table
from dspex.lm.providers import PROVIDERS
from dspex.lm.record import LM, LMChanges
from dspex.lm.sent_options import known_to, refused_by, require_sendable, worded_by
from dspex.testing import FakeLM
from tests.support.lm.requests import ASK

Fake = Callable[..., FakeLM]


def _body(lm: FakeLM) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(lm.requests[-1].raw)
    return body


@pytest.mark.parametrize("prefix", PROVIDERS)
def test_each_option_has_one_fate_at_each_provider(prefix: str) -> None:
    """unit: worded, put into the body, or refused by name"""
    provider = PROVIDERS[prefix]
    for name in GENERATION_OPTIONS:
        is_sent, is_refused = name in known_to(provider), name in refused_by(provider)
        assert not (is_sent and is_refused), name
        assert not (name in worded_by(provider) and is_refused), name
        if not is_sent:
            with pytest.raises(LMUnsupportedFeatureError, match=f"extra_body={{'{name}'"):
                require_sendable(provider, "p/m", {name: 2})


@pytest.mark.parametrize(
    ("model", "options", "error", "says"),
    [
        ("anthropic/m", {"seed": 1}, LMUnsupportedFeatureError, "extra_body={'seed'"),
        ("anthropic/m", {"logprobs": True}, LMUnsupportedFeatureError, "logprobs"),
        ("anthropic/m", {"repetition_penalty": 1.1}, LMUnsupportedFeatureError, "repetition_penalty"),
        ("anthropic/m", {"prompt_cache_key": "k"}, LMUnsupportedFeatureError, "cache_control_injection_points"),
        ("anthropic/m", {"response_format": {"type": "json_object"}}, LMUnsupportedFeatureError, "schema"),
        (
            "anthropic/m",
            {"thinking": {"type": "enabled", "budget_tokens": 4000}, "max_tokens": 4000},
            LMConfigurationError,
            "4,000",
        ),
        ("anthropic/m", {"thinking": {"budget_tokens": 20000}}, LMConfigurationError, "16,384"),
        ("anthropic/m", {"thinking": {"type": "enabled"}, "reasoning_effort": "low"}, LMConfigurationError, "give one"),
        ("gemini/m", {"user": "u"}, LMUnsupportedFeatureError, "user"),
        ("gemini/m", {"chat_template_kwargs": {}}, LMUnsupportedFeatureError, "chat_template_kwargs"),
        ("xai/m", {"logprobs": True}, LMUnsupportedFeatureError, "logprobs"),
        ("openai/m", {"top_logprobs": 3}, LMConfigurationError, "logprobs=True"),
        ("openai/m", {"logprobs": 3}, SettingsError, "top_logprobs"),
        ("openai/m", {"foo_bar": 3}, UnknownName, "extra_body={'foo_bar'"),
        ("openai/m", {"repetition_penaltyy": 3}, UnknownName, "Did you mean 'repetition_penalty'"),
        ("openai/m", {"extra_body": {"model": "dear"}}, LMConfigurationError, "'model'"),
        ("openai/m", {"extra_body": {"stream": True}}, LMConfigurationError, "'stream'"),
        ("openai/m", {"extra_body": [1]}, SettingsError, "extra_body"),
        ("openai/m", {"extra_body": {"x": object()}}, SettingsError, "plain data"),
        ("openai/m", {"chat_template_kwargs": "no"}, SettingsError, "chat_template_kwargs"),
        ("openai/m", {"reasoning_effort": 3}, SettingsError, "reasoning_effort"),
        ("openai/m", {"cache_control_injection_points": {"role": "system"}}, SettingsError, "list"),
        ("openai/m", {"cache_control_injection_points": [{"location": "tool_config"}]}, LMUnsupportedFeatureError, "m"),
    ],
)
def test_what_cannot_be_sent_is_refused_when_the_lm_is_made(
    model: str, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    """unit: by name, with the way through"""
    with pytest.raises(error) as caught:
        LM(model, api_key="k", **options)
    assert says in str(caught.value)


def test_what_a_provider_does_anyway_is_not_refused() -> None:
    """unit: Anthropic stores nothing, whoever asks for it"""
    assert LM("anthropic/m", api_key="k", store=False, logprobs=False).members == {}


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ({"top_k": 5}, {"top_k": 5}),
        ({"extra_body": {"top_k": 6, "x": [1]}}, {"top_k": 6, "x": [1]}),
        ({"min_p": 0.1, "extra_body": {"min_p": 0.2}}, {"min_p": 0.2}),
        ({"temperature": 0.5, "extra_body": {"temperature": 0.1}}, {"temperature": 0.1}),
        ({"provider": {"only": ["azure"]}}, {"provider": {"only": ["azure"]}}),
        ({"reasoning": {"max_tokens": 100}}, {"reasoning": {"max_tokens": 100}}),
        ({"prompt_cache_retention": "in_memory"}, {"prompt_cache_retention": "in_memory"}),
        ({"chat_template_kwargs": {"a": {"b": None}}}, {"chat_template_kwargs": {"a": {"b": None}}}),
    ],
)
@pytest.mark.parametrize("place", ["LM", "config", "table"])
def test_members_of_the_body_arrive_as_they_are(
    place: str, options: dict[str, Any], sent: dict[str, Any], fake: Fake, client: LMClient
) -> None:
    """collaboration: as options of the LM, of a call, and of a settings file's table"""
    lm = fake("ok")
    table = {"model": lm.model, "api_base": lm.api_base, "api_key": lm.api_key, "cache": False}
    made = lm_of_table({**table, **options}) if place == "table" else LM(**table, **(options if place == "LM" else {}))
    client.complete(made, ASK, config=options if place == "config" else None)
    assert {name: _body(lm)[name] for name in sent} == sent
    assert "extra_body" not in _body(lm)


def test_a_settings_table_is_refused_with_its_key() -> None:
    """unit: like every setting that cannot be"""
    for options in ({"seed": 1}, {"foo_bar": 1}, {"extra_body": {"model": "x"}}):
        with pytest.raises(SettingsError) as caught:
            lm_of_table({"model": "anthropic/m", **options}, "lms.cheap")
        assert str(caught.value.key).startswith("lms.cheap")


def test_openrouters_reasoning_is_spelled_as_it_wants_it(fake: Fake, client: LMClient) -> None:
    """collaboration: the level, and the switch"""
    lm = fake(["a", "b"], model="openrouter/openai/gpt-5", reasoning_effort="low")
    client.complete(lm, ASK)
    assert _body(lm)["reasoning"] == {"effort": "low"}
    client.complete(lm, ASK, config={"reasoning_effort": "none"})
    assert _body(lm)["reasoning"] == {"enabled": False}


def test_users_id_and_metadata_reach_anthropic_both(fake: Fake, client: LMClient) -> None:
    """collaboration: they stand in one place there"""
    lm = fake("ok", model="anthropic/m", user="u", metadata={"team": "t"})
    client.complete(lm, ASK)
    assert _body(lm)["metadata"] == {"user_id": "u", "team": "t"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"top_k": 1}, {"top_k": 2}),
        ({"extra_body": {"x": 1}}, {"extra_body": {"x": 2}}),
        ({"extra_headers": {"X-Tenant": "a"}}, {"extra_headers": {"X-Tenant": "b"}}),
        ({"provider": {"only": ["a"]}}, {"provider": {"only": ["b"]}}),
        ({"logprobs": True}, {"logprobs": False}),
        ({"cache_control_injection_points": [{"role": "user"}]}, {}),
    ],
)
def test_answers_to_other_options_are_not_taken_from_the_cache(
    one: dict[str, Any], other: dict[str, Any], fake: Fake, client: LMClient
) -> None:
    """collaboration: each is asked once"""
    server = fake("ok")
    settings = {"api_base": server.api_base, "api_key": server.api_key}
    for options in (one, other, one, other):
        client.complete(LM(server.model, **settings, **options), ASK)
    assert len(server.requests) == 2


def test_structured_outputs_can_be_switched_off() -> None:
    """unit: for a model that the table says can"""
    lm = LM("openai/gpt-4o-mini", api_key="k")
    off = lm.replace(structured_outputs=False)
    assert (lm.supports_schema, off.supports_schema) == (True, False)
    assert lm.replace(structured_outputs=None).supports_schema
    assert off.to_wire()["supports"]["response_schema"] is False
    assert lm != off


def test_credentials_among_the_members_are_shown_nowhere() -> None:
    """unit: neither in the text of an LM, nor to workers, nor in what an endpoint quotes"""
    lm = LM("openai/m", api_key="k", extra_body={"user_config": {"api_key": "sk-hidden-1234"}, "x": "seen"})
    assert "sk-hidden" not in f"{lm!r}{lm.to_wire()}"
    assert "sk-hidden-1234" in lm.secrets
    assert "seen" not in lm.secrets
    assert "'user_config': ..." in repr(lm)
    assert lm.replace() == lm


def test_every_option_has_a_type() -> None:
    """unit: type checkers know what LM() takes"""
    assert {"top_k", "extra_body", "chat_template_kwargs", "thinking", "extra_headers"} <= LMChanges.__optional_keys__
