"""Unit: which messages of a request get a mark for the provider's cache."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from dspex.lm.dialects.cache_marks import MOST, marked
from dspex.lm.lm_client import LMClient
from dspex.testing import FakeLM

MARK = {"type": "ephemeral"}


def _rows(*roles: str) -> list[dict[str, Any]]:
    return [{"role": role, "content": [{"type": "text", "text": f"{at}"}]} for at, role in enumerate(roles)]


def _places(body: dict[str, Any]) -> list[int | str]:
    found: list[int | str] = ["system"] if isinstance(body.get("system"), list) else []
    return found + [at for at, row in enumerate(body["messages"]) if "cache_control" in row["content"][-1]]


@pytest.mark.parametrize(
    ("points", "places"),
    [
        ([], []),
        ([{"location": "message", "role": "system"}], ["system"]),
        ([{"role": "user"}], [0, 2]),
        ([{"role": "assistant"}], [1]),
        ([{"index": 0}], ["system"]),
        ([{"index": -1}], [2]),
        ([{"index": 9}, {"index": -9}], []),
        ([{"role": "system"}, {"index": -1}], ["system", 2]),
    ],
)
def test_points_name_messages_by_role_or_place(points: list[dict[str, Any]], places: list[Any]) -> None:
    """unit: the system prompt is the first"""
    body = {"system": "S", "messages": _rows("user", "assistant", "user")}
    assert _places(marked(body, points)) == places


def test_no_more_than_four_are_marked() -> None:
    """unit: of more, the system prompt and the last ones"""
    body = {"system": "S", "messages": _rows(*["user"] * 9)}
    places = _places(marked(body, [{"role": "system"}, {"role": "user"}]))
    assert places == ["system", 6, 7, 8]
    assert len(places) == MOST


def test_a_point_has_a_mark_of_its_own() -> None:
    """unit: and nothing of the given body changes"""
    body = {"messages": [{"role": "user", "content": "q"}]}
    found = marked(body, [{"role": "user", "control": {"type": "ephemeral", "ttl": "1h"}}])
    block = {"type": "text", "text": "q", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    assert found == {"messages": [{"role": "user", "content": [block]}]}
    assert body == {"messages": [{"role": "user", "content": "q"}]}


def test_the_marks_arrive(fake: Callable[..., FakeLM], client: LMClient) -> None:
    """collaboration: at Anthropic's endpoint, and in blocks at an OpenAI-compatible gateway"""
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "q"}]
    points = [{"location": "message", "role": "system"}]
    for model in ("anthropic/m", "openrouter/anthropic/m"):
        lm = fake("ok", model=model, cache_control_injection_points=points)
        client.complete(lm, messages)
        body = json.loads(lm.requests[-1].raw)
        system = body["system"] if "system" in body else body["messages"][0]["content"]
        assert system == [{"type": "text", "text": "S", "cache_control": MARK}]
