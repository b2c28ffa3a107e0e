"""Security: what a worker's code may put into the body of its LM's requests, and what only the host may."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from dspex.errors import InvalidInput, LMConfigurationError
from dspex.lm.lm_client import LMClient
from dspex.testing import FakeLM
from tests.support.lm.requests import asked_by_worker

Fake = Callable[..., FakeLM]


def _forwarded(client: LMClient, lm: FakeLM, members: Any) -> dict[str, Any]:
    client.register(lm)
    list(client.forward(asked_by_worker(lm, members=members, body=json.dumps({"model": lm.name}).encode())))
    body: dict[str, Any] = json.loads(lm.requests[-1].raw)
    return body


@pytest.mark.parametrize(
    "member",
    ["models", "fallbacks", "preset", "user_config", "api_base", "Models", "model\u017f", "model", "n", "stream"],
)
@pytest.mark.parametrize("within", [False, True])
def test_members_that_move_a_request_are_the_hosts(member: str, within: bool, fake: Fake, client: LMClient) -> None:
    """collaboration: also within extra_body, and in any case"""
    lm = fake("x")
    members = {"extra_body": {member: ["dear"]}} if within else {member: ["dear"]}
    if member == "n" and not within:
        pytest.skip("says how many answers a call asks for, and does not travel")
    with pytest.raises(LMConfigurationError, match="may not set"):
        _forwarded(client, lm, members)
    assert not lm.requests


def test_what_the_record_has_stays(fake: Fake, client: LMClient) -> None:
    """collaboration: where a gateway asks is no worker's to change"""
    where = {"only": ["azure"]}
    lm = fake(["x"] * 3, provider=where, models=["a"], extra_body={"preset": "p"}, top_k=3)
    for members in ({"provider": {"only": ["elsewhere"]}}, {"models": ["dear"]}, {"extra_body": {"preset": "dear"}}):
        body = _forwarded(client, lm, members)
        assert (body["provider"], body["models"], body["preset"], body["top_k"]) == (where, ["a"], "p", 3)


def test_other_members_go_before_the_records(fake: Fake, client: LMClient) -> None:
    """collaboration: the code that asks is nearer"""
    lm = fake("x", top_k=3, min_p=0.5)
    body = _forwarded(client, lm, {"top_k": 7, "extra_body": {"x": 1}})
    assert (body["top_k"], body["min_p"], body["x"]) == (7, 0.5, 1)


@pytest.mark.parametrize(
    "members",
    [
        3,
        [],
        "x",
        {1: 2},
        {"extra_body": []},
        {"extra_body": {1: 2}},
        {"cache_control_injection_points": {}},
        {"cache_control_injection_points": [1]},
        {"cache_control_injection_points": [{"index": "x"}]},
        {"cache_control_injection_points": [{"role": []}, {"index": 1.5}]},
        dict.fromkeys(map(str, range(300)), 1),
        {"x": b"\xff"},
    ],
)
def test_malformed_members_are_refused(members: Any, fake: Fake, client: LMClient) -> None:
    """collaboration: by a typed error, before anything is sent"""
    lm = fake("x")
    with pytest.raises(InvalidInput):
        _forwarded(client, lm, members)
    assert not lm.requests
