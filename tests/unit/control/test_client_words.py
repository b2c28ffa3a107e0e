"""Unit: what a client says is held to what it may say: its replies, its name and budgets, its language models."""

from __future__ import annotations

import math
from typing import Any

import pytest

import dspex
from dspex.control.callback_replies import checked_part, checked_reply
from dspex.control.client_facts import ClientFacts
from dspex.errors import InvalidInput, LMConfigurationError, SettingsError
from dspex.lm.served_lm import ServedLM, read_ref, ref_of, told_of

ODD: list[Any] = [
    None,
    "text",
    [],
    {},
    {"score": "1"},
    {"score": math.nan},
    {"carried": b"x"},
    {"value": 1, "x": 2},
    b"x",
]


@pytest.mark.parametrize("reply", ODD, ids=repr)
def test_odd_replies_are_refused(reply: Any) -> None:
    """unit: of tools, of metrics, and of the parts of an answer."""
    for name in ("tool.call", "metric.call"):
        with pytest.raises(InvalidInput, match="answered something else"):
            checked_reply(name, reply)
    with pytest.raises(InvalidInput):
        checked_part(reply, is_first=True)
    if not isinstance(reply, bytes):
        with pytest.raises(InvalidInput):
            checked_part(reply, is_first=False)


@pytest.mark.parametrize("headers", [[["a"]], [["a", 1]], [["a", "x" * 20_000]], [["a", "b"]] * 300, {"a": "b"}])
def test_odd_heads_are_refused(headers: Any) -> None:
    """unit"""
    with pytest.raises(InvalidInput):
        checked_part({"status": 200, "headers": headers}, is_first=True)
    with pytest.raises(InvalidInput):
        checked_part({"status": 99, "headers": []}, is_first=True)


def test_good_replies_pass_without_what_else_they_say() -> None:
    """unit"""
    assert checked_reply("tool.call", {"value": [1]}) == {"value": [1]}
    assert checked_reply("metric.call", {"score": 0.5, "feedback": "more"}) == {"score": 0.5, "feedback": "more"}
    assert checked_reply("call.seen", "anything") is None
    head = checked_part({"status": 200, "headers": [["a", "b"]], "cached": 1, "more": 2}, is_first=True)
    assert head == {"status": 200, "headers": [["a", "b"]], "cached": False}


@pytest.mark.parametrize("name", ["a/b", "x" * 101, "two\nlines", 5])
def test_names_that_cannot_be_are_refused(name: Any) -> None:
    """unit"""
    with pytest.raises(InvalidInput):
        ClientFacts.of({"name": name})


@pytest.mark.parametrize("budget", [-1, math.nan, "1", True])
def test_budgets_that_cannot_be_are_refused(budget: Any) -> None:
    """unit: a client's own, and those of the settings."""
    with pytest.raises(InvalidInput):
        ClientFacts.of({"budget_usd": budget})
    for tables in ({"clients": {"budget_usd": budget}}, {"clients": {"web": {"budget_usd": budget}}}, {"clients": 5}):
        with pytest.raises(SettingsError):
            ClientFacts("web").within(tables)


def test_a_client_may_bound_itself_further_and_never_wider() -> None:
    """unit"""
    tables = {"clients": {"budget_usd": 5.0, "web": {"budget_usd": 2.0, "budget_tokens": 100}}}
    assert ClientFacts("web", 1.0, 1000).within(tables) == (1.0, 100)
    assert ClientFacts("web", 9.0).within(tables) == (2.0, 100)
    assert ClientFacts("other").within(tables) == (5.0, None)
    assert ClientFacts().within({}) == (None, None)


def test_a_served_lm_says_which_it_is_and_holds_no_key() -> None:
    """unit: and two services', or one whose settings changed, have no ref in common."""
    key = "sk-secret"
    lm = dspex.LM("openai/gpt-4o-mini", api_key=key, temperature=0.3, seed=3, headers={"x-org": "secret-org"})
    told = told_of(lm)
    assert key not in str(told) and "secret-org" not in str(told)
    served = ServedLM(None, "cheap", told)  # type: ignore[arg-type]
    assert served.settings()["seed"] == 3 and key not in str(served.settings())
    changed = served.replace(temperature=0.9)
    assert read_ref(changed.ref) == ("cheap", {"temperature": 0.9}) and served.replace(seed=3) is served
    assert read_ref(served.ref) == ("cheap", {})
    assert ref_of("cheap", {**told, "n": 2}, {}) != served.ref
    for change in ({"api_base": "http://127.0.0.1:9"}, {"headers": {"a": "b"}}, {"model": "openai/other"}):
        with pytest.raises(LMConfigurationError, match="the service's to say"):
            served.replace(**change)  # type: ignore[arg-type]
    with pytest.raises(LMConfigurationError, match="characters"):
        served.replace(stop="x" * 500)


def test_a_clouds_account_is_not_told() -> None:
    """unit: nor that of an LM that connects from workers."""
    lm = dspex.LM(
        "azure/gpt-4o", api_base="https://a.openai.azure.com", api_version="2024-10-21", azure_ad_token="t0ken"
    )
    assert told_of(lm) == {"model": "azure/gpt-4o", "direct": True}


@pytest.mark.parametrize(
    "ref",
    [
        "service:",
        "cheap/1/",
        "service:cheap/1/[]",
        "service:cheap/1/{",
        'service:cheap/1/{"api_base": "x"}',
        'service:cheap/1/{"headers": {}}',
        "service:cheap/1/" + "x" * 600,
    ],
)
def test_refs_that_are_none_are_refused(ref: str) -> None:
    """unit: a worker, or a client that writes its own frames, may send anything."""
    with pytest.raises(LMConfigurationError):
        read_ref(ref)
