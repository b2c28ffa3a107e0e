"""contract: a job's later worker gets the answers that its earlier one was given, and no others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from dspex.services.kept_answers import KeptAnswers


class Kept(dict[str, Mapping[str, Any]]):
    """Answers in memory."""

    def answer(self, key: str) -> Mapping[str, Any] | None:
        return self.get(key)

    def keep(self, key: str, kind: str, answer: Mapping[str, Any]) -> None:
        self[key] = answer


def request(body: str, **more: Any) -> dict[str, Any]:
    return {"method": "POST", "url": "http://127.0.0.1:9/v1/chat/completions", "body": body.encode(), **more}


def asked(store: Kept, *requests: Mapping[str, Any]) -> int:
    """Ask all of one worker; return how many were forwarded."""
    forwarded = 0

    async def forward() -> AsyncIterator[Any]:
        nonlocal forwarded
        forwarded += 1
        yield {"status": 200, "headers": [], "cached": False}
        yield b"{}"

    async def ask() -> None:
        answers = KeptAnswers(store)
        for one in requests:
            assert [part async for part in answers.of_lm(one, forward)][1] == b"{}"

    asyncio.run(ask())
    return forwarded


def test_a_later_worker_is_answered_without_a_request() -> None:
    """contract: and what may not be cached is told apart by how often it was asked."""
    store, fresh = Kept(), request("a", cache=False)
    assert asked(store, request("a"), request("a"), fresh, fresh) == 3
    assert asked(store, request("a"), fresh, fresh, fresh) == 1


def test_media_count_and_not_the_texts_that_stand_for_them() -> None:
    """contract: each worker draws its own stand-ins."""
    store = Kept()
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    other = {"type": "input_audio", "input_audio": {"data": "BBBB", "format": "wav"}}
    assert asked(store, request('["x-1"]', media={"x-1": sound})) == 1
    assert asked(store, request('["x-2"]', media={"x-2": sound})) == 0
    assert asked(store, request('["x-3"]', media={"x-3": other})) == 1
