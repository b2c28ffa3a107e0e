"""Unit: when a request is sent again, held back, or left to another: the policy on a fake clock."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest

from dspex.errors import LMTimeoutError, LMTransportError
from dspex.events import Name
from dspex.lm import exchange, request, retries
from dspex.lm.cache import Cache
from dspex.lm.call_options import CallPlan
from dspex.lm.effects import ExchangeOutcome, SendRequest, Sleep
from dspex.lm.exchange_services import ExchangeServices
from dspex.lm.http.http_message import Head, Reply
from dspex.lm.lm_client import LMClient
from dspex.lm.rate_limits import OPEN_S, TRIP_AFTER, Breaker, RateLimits, TokenBucket
from dspex.lm.record import LM
from dspex.lm.request import Request
from dspex.lm.request_factory import RequestFactory
from dspex.lm.single_flight import SingleFlight
from dspex.testing import FakeLM, FakeReply
from tests.support.lm.requests import ASK

pytestmark = pytest.mark.usefixtures("short_pauses")

Fake = Callable[..., FakeLM]
KEY = "sk-canary-4242424242"
BODY = json.dumps(
    {
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "fine"}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
).encode()


class Clock:
    """Stands for the `time` module in `exchange`, `retries` and `request`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Played:
    """An exchange driven by hand: replies in turn, sleeps that only move the clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seed: int = 0, **options: Any) -> None:
        self.clock = Clock()
        for module in (exchange, retries, request):
            monkeypatch.setattr(module, "time", self.clock)
        self.services = ExchangeServices(Cache(), SingleFlight(), RateLimits(), random.Random(seed))
        self.lm = LM("openai/m", api_base="http://127.0.0.1:9/v1", api_key=KEY, **{"cache": False, **options})
        self.sleeps: list[float] = []
        self.sent = 0
        self.events: list[tuple[Name, dict[str, Any]]] = []

    def order(self, deadline: float | None = None) -> Request:
        after = None if deadline is None else self.clock.now + deadline
        order = RequestFactory().native(CallPlan(self.lm, {"deadline": after}), ASK, 0, stream=False)
        order.emit = lambda name, **facts: self.events.append((name, facts))
        return order

    def run(self, replies: list[Any], *, deadline: float | None = None, takes: float = 0.0) -> ExchangeOutcome:
        going = exchange.exchange(self.services, self.order(deadline))
        answer: Any = None
        is_error = False
        try:
            while True:
                effect = going.throw(answer) if is_error else going.send(answer)
                answer, is_error = None, False
                if isinstance(effect, Sleep):
                    self.sleeps.append(effect.seconds)
                    self.clock.now += effect.seconds
                    continue
                assert isinstance(effect, SendRequest)
                self.sent += 1
                self.clock.now += takes
                answer = replies.pop(0)
                is_error = isinstance(answer, Exception)
        except StopIteration as stop:
            outcome: ExchangeOutcome = stop.value
            return outcome


def reply(status: int, body: bytes = b"{}", **headers: str) -> Reply:
    lines = [f"HTTP/1.1 {status} X", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return Reply(Head("\r\n".join(lines), status), body)


def test_pauses_are_spread_over_their_whole_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: full jitter, from nothing to the doubling bound; seeds 0 to 199."""
    monkeypatch.setattr(retries, "BACKOFF_S", 0.5)
    pauses: list[list[float]] = [[], [], []]
    for seed in range(200):
        played = Played(monkeypatch, seed, retries=3)
        assert played.run([reply(500), reply(500), reply(500), reply(200, BODY)]).attempts == 4
        for at, pause in enumerate(played.sleeps):
            pauses[at].append(pause)
    for at, bound in enumerate((0.5, 1.0, 2.0)):
        assert 0 <= min(pauses[at]) < 0.1 * bound and 0.9 * bound < max(pauses[at]) <= bound
        assert 0.4 * bound < sum(pauses[at]) / 200 < 0.6 * bound


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": "1.5"}, 1.5),
        ({"retry_after_ms": "250"}, 0.25),
        ({"retry_after": "-1"}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "nan"}, None),
    ],
)
def test_providers_wish_is_kept(
    headers: dict[str, str], expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """unit: seconds and milliseconds; what is no time is our own pause."""
    played = Played(monkeypatch)
    played.run([reply(429, **headers), reply(200, BODY)])
    [pause] = played.sleeps
    assert pause == expected if expected is not None else 0 <= pause <= 0.001
    assert played.events == [
        (
            Name.LM_RETRIED,
            {
                "model": "openai/m",
                "endpoint": "127.0.0.1:9",
                "attempt": 1,
                "reason": "LMRateLimitError",
                "status": 429,
                "pause_s": pause,
            },
        )
    ]


def test_providers_wish_may_be_a_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: a date in the future is a pause, one in the past none."""
    for ahead, least, most in ((30, 25, 31), (-60, 0, 0)):
        played = Played(monkeypatch)
        played.run([reply(503, retry_after=formatdate(time.time() + ahead, usegmt=True)), reply(200, BODY)])
        assert least <= played.sleeps[0] <= most


def test_no_attempt_begins_that_cannot_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: a pause past the deadline is not slept; attempts get only what is left."""
    played = Played(monkeypatch, retries=5)
    outcome = played.run([reply(429, retry_after="20")], deadline=10)
    assert (outcome.attempts, played.sleeps, played.sent) == (1, [], 1)
    played = Played(monkeypatch, retries=5)
    outcome = played.run([reply(503, retry_after="3")] * 6, deadline=10, takes=1.0)
    assert played.sleeps == [3.0, 3.0] and outcome.attempts == 3
    assert played.clock.now <= 1010


def test_circuit_opens_with_one_trial_for_all_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: after ten failures in a row nobody but one caller asks until it is answered; then all do; both are told."""
    played = Played(monkeypatch, retries=0)
    for _ in range(TRIP_AFTER):
        with pytest.raises(LMTransportError):
            played.run([LMTransportError("no answer")])
    with pytest.raises(LMTransportError, match="left alone"):
        played.run([])
    assert played.sent == TRIP_AFTER
    assert [name for name, _ in played.events] == [Name.LM_CIRCUIT_OPENED]
    played.clock.now += OPEN_S
    going = [exchange.exchange(played.services, played.order()) for _ in range(5)]
    effects: list[Any] = []
    for one in going:
        try:
            effects.append(next(one))
        except LMTransportError:
            effects.append(None)
    assert [type(effect) for effect in effects] == [SendRequest] + [type(None)] * 4
    with pytest.raises(StopIteration):
        going[0].send(reply(200, BODY))
    assert played.run([reply(200, BODY)]).error is None
    assert [name for name, _ in played.events] == [Name.LM_CIRCUIT_OPENED, Name.LM_CIRCUIT_CLOSED]


@pytest.mark.parametrize(("deadline", "opens"), [(2.0, False), (20.0, True)])
def test_hurried_callers_open_no_circuit(monkeypatch: pytest.MonkeyPatch, deadline: float, opens: bool) -> None:
    """unit: that the endpoint did not answer within the caller's two seconds says nothing about it to the others."""
    played = Played(monkeypatch, retries=0)
    for _ in range(TRIP_AFTER):
        with pytest.raises(LMTimeoutError):
            played.run([LMTimeoutError("too late")], deadline=deadline)
    assert [name for name, _ in played.events] == ([Name.LM_CIRCUIT_OPENED] if opens else [])


def test_trial_that_is_given_up_does_not_keep_the_circuit_open_for_ever() -> None:
    """unit: a caller that was cancelled during its trial is followed by another."""
    breaker = Breaker()
    for _ in range(TRIP_AFTER):
        breaker.record(False, 0.0)
    assert breaker.wait(OPEN_S) == 0.0  # the trial, which never tells
    assert breaker.wait(OPEN_S + 1) == OPEN_S - 1
    assert breaker.wait(2 * OPEN_S) == 0.0


def test_open_circuit_is_passed_by_at_once_where_there_is_a_fallback(fake: Fake, client: LMClient) -> None:
    """collaboration: nobody sleeps for an endpoint that is down while another can answer."""
    backup = fake("from the backup", model="openai/backup")
    closed = socket.create_server(("127.0.0.1", 0))
    dead = LM(
        "openai/m", api_base=f"http://127.0.0.1:{closed.getsockname()[1]}/v1", api_key=KEY, cache=False, retries=0
    )
    closed.close()
    for _ in range(TRIP_AFTER):
        with pytest.raises(LMTransportError):
            client.complete(dead, ASK)
    began = time.monotonic()
    patient = dead.replace(retries=3, fallbacks=[backup.lm])
    assert client.complete(patient, ASK).text == "from the backup"
    assert time.monotonic() - began < OPEN_S / 2


def test_rate_limit_is_told_and_shared_by_the_endpoints_lms(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: two LMs of one endpoint, key and rate share a bucket; whoever waits is heard of."""
    played = Played(monkeypatch, requests_per_minute=60)
    played.run([reply(200, BODY)])
    played.lm = played.lm.replace(temperature=0.5)
    played.run([reply(200, BODY)])
    assert played.sleeps == [pytest.approx(1.0)]
    assert played.events == [
        (Name.LM_LIMITED, {"model": "openai/m", "endpoint": "127.0.0.1:9", "pause_s": pytest.approx(1.0)})
    ]


def test_bucket_serves_in_the_order_of_asking() -> None:
    """unit: each waits its own turn; one that gives up frees a turn for who asks next, and nobody overtakes."""
    bucket = TokenBucket(2.0, 1.0)
    waits = [bucket.reserve(0.0) for _ in range(5)]
    assert waits == [0.0, 0.5, 1.0, 1.5, 2.0] == sorted(waits)
    bucket.give_back()
    assert bucket.reserve(0.0) == 2.0


def test_cancelled_leader_of_a_stream_hands_over(fake: Fake, client: LMClient) -> None:
    """collaboration: a follower of a stream that is given up asks itself, and gets the whole answer."""
    slow = FakeReply("never whole", chunks=["never ", "whole"], chunk_delay=60)
    lm = fake([slow, "whole"], cache=True)

    async def both() -> str:
        leader = client.astream(lm, ASK)
        assert await anext(leader) == "never "
        follower = asyncio.create_task(_joined(client, lm))
        await asyncio.sleep(0.05)
        assert not follower.done()
        await leader.aclose()
        return await asyncio.wait_for(follower, 10)

    assert asyncio.run(both()) == "whole"
    assert len(lm.requests) == 2 and len(client._services.single_flight) == 0


async def _joined(client: LMClient, lm: LM) -> str:
    return "".join([item async for item in client.astream(lm, ASK) if isinstance(item, str)])
