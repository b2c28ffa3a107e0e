"""Security: what a worker may put into a forwarded request: each field is what its name says."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any

import pytest

from dspex.errors import InvalidInput, UnknownName
from dspex.lm.forwarding import require_request
from dspex.lm.lm_client import LMClient

GOOD: dict[str, Any] = {
    "lm": "none", "method": "POST", "url": "http://127.0.0.1:9/v1/chat/completions", "headers": [["a", "b"]],
    "body": b"{}", "stream": False, "rollout_id": None, "candidate": 0, "timeout": 30, "cache": True,
    "has_alternative": False, "instead_of": None, "reason": None,
}  # fmt: skip

ODD: list[tuple[str, Any]] = [
    ("lm", None), ("lm", {}), ("lm", "x" * 1000),
    ("method", 5), ("method", []), ("method", "P" * 1000),
    ("url", None), ("url", 5), ("url", b"http://x"), ("url", "x" * 100_000),
    ("headers", 5), ("headers", "name"), ("headers", [["a"]]), ("headers", [["a", 1]]), ("headers", [5]),
    ("headers", {"a": None}), ("headers", [["a", "b"]] * 1000),
    ("body", 2**34), ("body", None), ("body", [1, 2]), ("body", {}), ("body", True), ("body", 1.5),
    ("stream", 1), ("cache", "no"), ("has_alternative", {}),
    ("rollout_id", {}), ("rollout_id", 1.5), ("rollout_id", "x" * 10_000),
    ("candidate", -1), ("candidate", 2**60), ("candidate", "1"), ("candidate", True),
    ("timeout", float("nan")), ("timeout", -1), ("timeout", "30"), ("timeout", True),
    ("instead_of", 5), ("reason", {}), ("reason", "x" * 10**6),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), ODD, ids=[f"{name}-{type(value).__name__}" for name, value in ODD])
@pytest.mark.parametrize("is_async", [False, True])
def test_what_is_no_request_is_refused_before_anything_is_made_of_it(name: str, value: Any, is_async: bool) -> None:
    """unit: on both routes, naming the field; a body that is a number takes no memory."""
    with LMClient() as client:
        tracemalloc.start()
        try:
            with pytest.raises(InvalidInput) as caught:
                if is_async:
                    client.aforward({**GOOD, name: value})
                else:
                    client.forward({**GOOD, name: value})
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert caught.value.field == name
    assert len(str(caught.value)) < 200
    assert peak < 32 * 1024 * 1024


@pytest.mark.parametrize(
    "change",
    [
        {}, {"headers": {"a": "b"}}, {"headers": None}, {"headers": [("a", "b")]}, {"body": "text"}, {"body": b""},
        {"timeout": None}, {"timeout": 1.5}, {"timeout": float("inf")}, {"rollout_id": 7}, {"candidate": None},
        {"instead_of": "a/b", "reason": "down"},
    ],
)  # fmt: skip
def test_what_a_worker_sends_passes(change: dict[str, Any]) -> None:
    """unit"""
    require_request({**GOOD, **change})


def test_a_whole_request_is_only_then_looked_up() -> None:
    """unit: an LM that nobody registered is unknown, also asynchronously."""

    async def ask(client: LMClient) -> None:
        async for _ in client.aforward(GOOD):
            pass

    with LMClient() as client, pytest.raises(UnknownName):
        asyncio.run(ask(client))
