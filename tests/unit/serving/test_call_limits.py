"""Unit: what requests may ask for by headers."""

from __future__ import annotations

import math

import pytest

from dspex.errors import BudgetExceeded, SettingsError
from dspex.serving.call_limits import HEADERS, AskedLimits, CallLimits
from dspex.serving.request_refused import RequestRefused


def asked(limits: CallLimits, **headers: str) -> AskedLimits:
    known = {HEADERS[name]: value.split("|") for name, value in headers.items()}
    return limits.asked(lambda name: known.get(name, []))


LIMITS = CallLimits(60.0, budget_usd=0.5, budget_tokens=1000)


def test_what_is_not_asked_for_is_the_servers_limit() -> None:
    """unit"""
    found = asked(LIMITS)
    assert (found.timeout, found.budget_usd, found.budget_tokens, found.budget_requests) == (60.0, 0.5, 1000, None)
    found = asked(LIMITS, timeout="1.5", budget_tokens="10", budget_requests="2")
    assert (found.timeout, found.budget_tokens, found.budget_requests) == (1.5, 10, 2)


@pytest.mark.parametrize(("name", "value", "limit"), [("timeout", "60.5", "60 s"), ("budget_usd", "0.51", "0.5 USD")])
def test_what_is_over_the_limit_is_refused_with_both_figures(name: str, value: str, limit: str) -> None:
    """unit"""
    with pytest.raises(RequestRefused) as caught:
        asked(LIMITS, **{name: value})
    assert caught.value.status == 400
    assert value in str(caught.value) and limit in str(caught.value)


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e999", "", "1|2", "0x10", "١", "9" * 400, "1.5.2", "+3"])
@pytest.mark.parametrize("name", HEADERS)
def test_what_is_no_number_is_refused(name: str, value: str) -> None:
    """unit"""
    with pytest.raises(RequestRefused, match=HEADERS[name]):
        asked(CallLimits(), **{name: value})


def test_a_number_may_be_written_as_programs_write_it() -> None:
    """unit: a client's `str(0.00001)` is "1e-05"."""
    assert asked(CallLimits(), budget_usd=str(0.00001)).budget_usd == 0.00001


def test_tokens_and_requests_are_whole() -> None:
    """unit"""
    for name in ("budget_tokens", "budget_requests"):
        with pytest.raises(RequestRefused, match="whole number"):
            asked(CallLimits(), **{name: "1.5"})


def test_a_limit_of_requests_ends_an_account() -> None:
    """unit: as those of tokens and dollars do."""
    account = asked(CallLimits(), budget_requests="1").account
    account.check()
    account.add("m", {"total_tokens": 3}, None)
    with pytest.raises(BudgetExceeded, match="1 of 1 requests"):
        account.check()


@pytest.mark.parametrize("limits", [{"timeout": 0}, {"timeout": math.inf}, {"timeout": None}, {"budget_usd": True}])
def test_a_server_whose_limit_cannot_be_is_refused(limits: dict[str, float]) -> None:
    """unit"""
    with pytest.raises(SettingsError):
        CallLimits(**limits)  # type: ignore[arg-type]
