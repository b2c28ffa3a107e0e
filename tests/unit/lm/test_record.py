"""Unit: the LM record."""

from __future__ import annotations

import json
import pickle

import pytest

from dspex.errors import LMConfigurationError, SettingsError, UnknownName
from dspex.lm.record import LM


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_key_and_address_come_from_the_environment_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: resolved when the record is made, never later (I4, I5)."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-one")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://gateway/v1/")
    lm = LM("openai/x")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-two")
    assert (lm.api_key, lm.key_source, lm.api_base) == ("sk-one", "env:OPENAI_API_KEY", "http://gateway/v1")
    assert LM("openai/x", api_base="http://h/v1", api_key="k").api_base == "http://h/v1"


def test_record_is_frozen_and_compares_by_its_settings() -> None:
    """unit: equal settings, equal refs; the key is part of it."""
    one = LM("openai/x", api_key="k", temperature=0.1, stop=["a"], logit_bias={"1": 2})
    assert one == one.replace()
    assert hash(one) == hash(one.replace())
    assert one.replace(price=(1, 2)) == one.replace(price=(1, 2)).replace()
    assert one != one.replace(api_key="other")
    assert one != one.replace(temperature=0.2)
    with pytest.raises(AttributeError):
        one.temperature = 1.0  # type: ignore[misc]


def test_key_is_in_no_text_and_not_on_the_wire() -> None:
    """unit: repr, the wire form and pickles hold no key (X3)."""
    lm = LM("openai/x", api_key="sk-verysecret", headers={"X-Team": "secretheader"}, top_p=0.5)
    shown = f"{lm!r} {lm} {json.dumps(lm.to_wire())}"
    assert "verysecret" not in shown
    assert "secretheader" not in shown
    with pytest.raises(TypeError, match="holds a key"):
        pickle.dumps(lm)
    assert lm.to_wire()["options"] == {"top_p": 0.5}
    assert lm.to_wire()["ref"] == lm.ref


def test_absent_is_absent() -> None:
    """unit: None leaves a generation option out."""
    assert LM("openai/x", api_key="k").options() == {}
    assert LM("openai/x", api_key="k", max_tokens=5, seed=None).options() == {"max_tokens": 5}


@pytest.mark.parametrize(
    ("model", "near"), [("opnai/x", "openai"), ("antropic/x", "anthropic"), ("vllm/x", "hosted_vllm")]
)
def test_unknown_provider_names_its_neighbours(model: str, near: str) -> None:
    """unit: UnknownName, with the near names."""
    with pytest.raises(UnknownName) as caught:
        LM(model)
    assert near in caught.value.near


def test_unknown_option_names_its_neighbours() -> None:
    """unit: a typing error is not sent to the provider."""
    with pytest.raises(UnknownName) as caught:
        LM("openai/x", temprature=0.3)
    assert "temperature" in caught.value.near


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 3},
        {"temperature": "hot"},
        {"top_p": 1.5},
        {"n": 0},
        {"retries": -1},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"max_tokens": 0},
        {"api_key": "a\nb"},
        {"headers": {"X": "a\r\nb"}},
        {"logit_bias": {1: object()}},
        {"fallbacks": ["openai/y"]},
        {"price": 3},
    ],
)
def test_value_out_of_range_is_a_settings_error(options: dict[str, object]) -> None:
    """unit: each range is checked when the record is made."""
    with pytest.raises(SettingsError):
        LM("openai/x", **{"api_key": "k", **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["", "gpt-4o", "openai/"])
def test_model_needs_a_provider_and_a_name(model: str) -> None:
    """unit: the message says what to write."""
    with pytest.raises(SettingsError):
        LM(model)


@pytest.mark.parametrize("options", [{"temperature": 0.5}, {"max_tokens": 100}])
def test_reasoning_models_refuse_what_openai_refuses(options: dict[str, float]) -> None:
    """unit: gpt-5 and the o-series fix temperature and want many tokens; their chat variants do not."""
    with pytest.raises(LMConfigurationError):
        LM("openai/gpt-5", api_key="k", **options)  # type: ignore[arg-type]
    LM("openai/gpt-5-chat-latest", api_key="k", **options)  # type: ignore[arg-type]
    LM("openai/gpt-5", api_key="k", temperature=1.0, max_tokens=16000)


def test_structured_outputs_and_claims_reach_the_wire() -> None:
    """unit: what the user knows better than the model table."""
    lm = LM("hosted_vllm/tiny", structured_outputs=True, function_calling=True)
    assert lm.to_wire()["supports"] == {"response_schema": True, "function_calling": True, "reasoning": False}
    assert LM("local/smollm2").supports_schema
    assert LM("local/smollm2").to_wire()["model"] == "hosted_vllm/smollm2"


@pytest.mark.parametrize("name", ["cache", "private", "direct", "structured_outputs"])
@pytest.mark.parametrize("value", ["no", 0, 2.5])
def test_switches_are_true_or_false(name: str, value: object) -> None:
    """unit: as from a settings file, where "no" would have meant yes"""
    with pytest.raises(SettingsError, match=name):
        LM("openai/m", **{name: value})  # type: ignore[arg-type]
