"""Collaboration: what callers who ask the same at the same time share, and what each keeps for himself (RULES I6)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from dspex.errors import LMAuthError, LMError, LMServerError
from dspex.lm.lm_client import LMClient
from dspex.lm.single_flight import SingleFlight
from dspex.testing import FakeLM, FakeReply
from tests.support.lm.requests import ASK

Fake = Callable[..., FakeLM]
PATIENCE_S = 20.0


def followed(client: LMClient) -> bool:
    """Wait until somebody waits for another's answer."""
    until = time.monotonic() + PATIENCE_S
    while not any(list(client._services.single_flight._followers.values())) and time.monotonic() < until:
        threading.Event().wait(0.001)
    return any(list(client._services.single_flight._followers.values()))


def outcome_of(call: Callable[[], Any]) -> str | type[LMError]:
    """The answer's text, or the class of its error."""
    try:
        return str(call().text)
    except LMError as error:
        return type(error)


def leader_and_follower(
    client: LMClient, gate: threading.Event, leads: Callable[[], Any], follows: Callable[[], Any], requests: list[Any]
) -> tuple[str | type[LMError], str | type[LMError]]:
    """Both calls at the same time, the first one leading; the gate opens when the second one waits."""
    found: dict[str, str | type[LMError]] = {}
    first = threading.Thread(target=lambda: found.update(leader=outcome_of(leads)))
    second = threading.Thread(target=lambda: found.update(follower=outcome_of(follows)))
    first.start()
    until = time.monotonic() + PATIENCE_S
    while not requests and time.monotonic() < until:
        threading.Event().wait(0.001)
    second.start()
    waited = followed(client)
    gate.set()
    first.join()
    second.join()
    assert waited
    return found["leader"], found["follower"]


def test_refusal_of_one_callers_key_or_settings_is_not_anothers(fake: Fake, client: LMClient) -> None:
    """collaboration: the follower has settings of his own, and asks for himself."""
    gate = threading.Event()
    replies = iter([FakeReply(status=401), "fine"])

    def answer(messages: list[dict[str, Any]]) -> FakeReply | str:
        gate.wait(PATIENCE_S)
        return next(replies)

    endpoint = fake(answer, cache=True)
    other = endpoint.replace(timeout=50)
    found = leader_and_follower(
        client, gate, lambda: client.complete(endpoint, ASK), lambda: client.complete(other, ASK), endpoint.requests
    )
    assert found == (LMAuthError, "fine")


def test_leader_in_a_hurry_does_not_fail_those_who_have_time(fake: Fake, client: LMClient) -> None:
    """collaboration: the leader's deadline leaves no room for the provider's pause, the follower's does."""
    gate = threading.Event()
    replies = iter([FakeReply(status=503, headers={"retry-after": "30"}), "fine"])

    def answer(messages: list[dict[str, Any]]) -> FakeReply | str:
        gate.wait(PATIENCE_S)
        return next(replies)

    lm = fake(answer, cache=True, retries=1)
    hurried = time.monotonic() + PATIENCE_S
    found = leader_and_follower(
        client,
        gate,
        lambda: client.complete(lm, ASK, deadline=hurried),
        lambda: client.complete(lm, ASK),
        lm.requests,
    )
    assert found == (LMServerError, "fine")


def test_blocking_call_does_not_wait_for_a_task_of_its_own_loop(fake: Fake, client: LMClient) -> None:
    """collaboration: a notebook's cell; the task cannot go on while the call holds its thread."""
    lm = fake([FakeReply(hang=True), "fine"], cache=True)

    async def cell() -> str:
        task = asyncio.create_task(client.acomplete(lm, ASK))
        await asyncio.to_thread(lm.wait_for, lambda: len(lm.requests) == 1)
        mine = client.complete(lm, ASK, deadline=time.monotonic() + PATIENCE_S).text
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await client.aclose()
        return mine

    assert asyncio.run(cell()) == "fine"


def test_one_thread_reads_two_equal_streams_in_turns(fake: Fake, client: LMClient) -> None:
    """collaboration"""
    lm = fake("some words to stream", cache=True)
    deadline = time.monotonic() + PATIENCE_S
    one, two = (client.stream(lm, ASK, deadline=deadline) for _ in range(2))
    began = [next(one), next(two)]
    rest = [[item for item in stream if isinstance(item, str)] for stream in (one, two)]
    assert ["".join([str(first), *more]) for first, more in zip(began, rest, strict=True)] == [
        "some words to stream"
    ] * 2


@pytest.mark.parametrize("together", [False, True])
def test_stream_whose_reader_stands_still_is_not_waited_for(together: bool, fake: Fake, client: LMClient) -> None:
    """collaboration: one task reads two equal streams in turns, or two at once."""
    lm = fake("some words to stream", cache=True)

    async def read() -> list[Any]:
        deadline = time.monotonic() + PATIENCE_S
        one, two = (client.astream(lm, ASK, deadline=deadline) for _ in range(2))
        began = await asyncio.gather(anext(one), anext(two)) if together else [await anext(one), await anext(two)]
        await one.aclose()
        await two.aclose()
        await client.aclose()
        return list(began)

    began = asyncio.run(read())
    assert began[0] == began[1] != ""


def test_leader_that_is_interrupted_while_it_keeps_its_answer_hands_over(
    fake: Fake, client: LMClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """collaboration: Ctrl-C between the answer and its landing leaves nobody waiting for ever."""
    lm = fake("fine", cache=True)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(client.cache, "put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        client.complete(lm, ASK)
    monkeypatch.undo()
    assert len(client._services.single_flight) == 0
    assert client.complete(lm, ASK, deadline=time.monotonic() + PATIENCE_S).text == "fine"


def test_leaving_after_landing_does_not_disturb_the_next_flight() -> None:
    """unit"""
    flights: SingleFlight[str] = SingleFlight()
    old = flights.join(b"k")
    flights.land(old, "done")
    leader, follower = flights.join(b"k"), flights.join(b"k")
    flights.leave(old)
    assert (leader.leads, follower.leads, len(flights)) == (True, False, 1)
