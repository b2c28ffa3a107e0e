"""Collaboration: the client against scripted endpoints: cache, flights, retries, deadlines, budgets, forwarding."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from dspex.errors import (
    BudgetExceeded,
    InvalidInput,
    LMAuthError,
    LMConfigurationError,
    LMError,
    LMInvalidRequestError,
    LMNotConfiguredError,
    LMRateLimitError,
    LMServerError,
    LMStreamAssemblyError,
    LMTimeoutError,
    LMTransportError,
    LMUnsupportedFeatureError,
)
from dspex.lm import lm_client as lm_client
from dspex.lm.completion import Completion
from dspex.lm.lm_client import LMClient
from dspex.lm.rate_limits import TRIP_AFTER
from dspex.lm.record import LM
from dspex.lm.usage import Account
from dspex.testing import FakeLM, FakeReply
from tests.support.lm.requests import ASK

pytestmark = pytest.mark.usefixtures("short_pauses")

Fake = Callable[..., FakeLM]
Complete = Callable[..., Completion]


@pytest.fixture(params=["complete", "acomplete"])
def complete(request: pytest.FixtureRequest, client: LMClient) -> Complete:
    """A call on either route through the same policy."""
    if request.param == "complete":
        return client.complete
    return lambda *args, **kwargs: asyncio.run(client.acomplete(*args, **kwargs))


def test_answer_has_text_usage_and_cost(fake: Fake, complete: Complete) -> None:
    """collaboration: one request, priced by the LM's own prices."""
    usage = {"prompt_tokens": 1_000_000, "completion_tokens": 500_000, "total_tokens": 1_500_000}
    lm = fake([FakeReply("four", usage=usage)], price=(2, 4))
    answer = complete(lm, ASK)
    assert (answer.text, answer.cached, answer.attempts, answer.finish_reasons) == ("four", False, 1, ["stop"])
    assert answer.usage["total_tokens"] == 1_500_000
    assert answer.cost == pytest.approx(4.0)


def test_second_equal_call_comes_from_the_cache(fake: Fake, complete: Complete, client: LMClient) -> None:
    """collaboration: no request, no usage, no cost; another rollout asks again (I6)."""
    lm = fake(["one", "two"], cache=True)
    assert complete(lm, ASK).text == "one"
    again = complete(lm, ASK)
    assert (again.text, again.cached, again.usage, again.cost, again.attempts) == ("one", True, {}, 0.0, 0)
    assert complete(lm, ASK, rollout_id=1).text == "two"
    assert complete(lm, ASK, config={"rollout_id": 1}).cached
    assert len(lm.requests) == 2
    assert client.usage.total.requests == 2


def test_cache_is_shared_between_threads_and_loops(fake: Fake, client: LMClient) -> None:
    """collaboration: what complete asked, acomplete need not."""
    lm = fake(["one"], cache=True)
    assert client.complete(lm, ASK).text == "one"
    assert asyncio.run(client.acomplete(lm, ASK)).cached


def test_call_may_refuse_the_cache(fake: Fake, complete: Complete) -> None:
    """collaboration: config cache=False."""
    lm = fake(["one", "two"], cache=True)
    complete(lm, ASK)
    assert complete(lm, ASK, config={"cache": False}).text == "two"


def test_private_lms_with_other_keys_do_not_share(client: LMClient, fake: Fake) -> None:
    """collaboration: a private answer is not served to another key."""
    lm = fake(["one"], cache=True, private=True)
    client.complete(lm, ASK)
    with pytest.raises(LMAuthError):
        client.complete(lm.replace(api_key="another"), ASK)
    assert client.complete(lm, ASK).cached


def test_n_asks_n_times(fake: Fake, complete: Complete) -> None:
    """parity: n requests in sequence, as they are (the heat of 0.7 is Predict's); the candidates are cached apart."""
    lm = fake(["a", "b"], cache=True)
    answer = complete(lm, ASK, config={"n": 2})
    assert answer.texts == ["a", "b"]
    assert all("temperature" not in request.body for request in lm.requests)
    assert all("n" not in request.body for request in lm.requests)
    assert complete(lm, ASK, config={"n": 2}).texts == ["a", "b"]
    assert len(lm.requests) == 2


def test_temporary_failures_are_retried(fake: Fake, complete: Complete) -> None:
    """collaboration: 429 by its Retry-After, 500, and a broken connection."""
    lm = fake(
        [FakeReply(status=429, headers={"retry-after": "0.01"}), FakeReply(status=500), FakeReply("x", cut=3), "ok"]
    )
    answer = complete(lm, ASK)
    assert (answer.text, answer.attempts) == ("ok", 4)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (FakeReply(status=401), LMAuthError),
        (FakeReply(status=400), LMInvalidRequestError),
        (FakeReply(status=302, headers={"location": "http://elsewhere/"}, body=b""), LMError),
    ],
)
def test_final_failures_are_not_retried(reply: FakeReply, kind: type[LMError], fake: Fake, complete: Complete) -> None:
    """collaboration: one request; a redirect is refused, the key goes nowhere else."""
    lm = fake([reply, "never"])
    with pytest.raises(kind):
        complete(lm, ASK)
    assert len(lm.requests) == 1


def test_retries_end(fake: Fake, complete: Complete) -> None:
    """collaboration: retries + 1 requests, then the provider's own error."""
    lm = fake(FakeReply_forever(503), retries=2)
    with pytest.raises(LMServerError):
        complete(lm, ASK)
    assert len(lm.requests) == 3


def FakeReply_forever(status: int) -> Callable[[list[dict[str, Any]]], FakeReply]:
    return lambda messages: FakeReply(status=status, headers={"retry-after": "0"})


def test_no_pause_goes_past_the_deadline(fake: Fake, complete: Complete) -> None:
    """collaboration: a Retry-After beyond the deadline fails at once, with the provider's error (I5)."""
    lm = fake([FakeReply(status=429, headers={"retry-after": "60"}), "never"])
    began = time.monotonic()
    with pytest.raises(LMRateLimitError) as caught:
        complete(lm, ASK, deadline=time.monotonic() + 30)
    assert caught.value.retry_after == 60
    assert time.monotonic() - began < 10


def test_deadline_cuts_a_silent_endpoint_off(fake: Fake, complete: Complete) -> None:
    """collaboration: the timeout error, no second attempt beyond the deadline, and the connection is closed."""
    lm = fake([FakeReply(hang=True)], cycle=True)
    with pytest.raises(LMTimeoutError):
        complete(lm, ASK, deadline=time.monotonic() + 0.1)
    lm.wait_for(lambda: lm.hung_up == 1)


def test_deadline_in_the_past_sends_nothing(fake: Fake, complete: Complete) -> None:
    """collaboration: too late is too late."""
    lm = fake("x")
    with pytest.raises(LMTimeoutError):
        complete(lm, ASK, deadline=time.monotonic() - 1)
    assert lm.requests == []


def test_fallback_answers_when_the_first_cannot(fake: Fake, complete: Complete) -> None:
    """collaboration: also across dialects; a wrong request is not tried elsewhere."""
    backup = fake("from the backup", model="anthropic/claude-x")
    broken = fake(FakeReply_forever(503), retries=0, fallbacks=[backup])
    assert complete(broken, ASK).text == "from the backup"
    picky = fake([FakeReply(status=400)], fallbacks=[backup])
    with pytest.raises(LMInvalidRequestError):
        complete(picky, ASK)
    assert len(backup.requests) == 1


def test_first_failure_is_reported_when_all_fail(fake: Fake, complete: Complete) -> None:
    """collaboration: the error is about the LM that was asked for."""
    backup = fake([FakeReply(status=401)])
    broken = fake(FakeReply_forever(503), retries=0, fallbacks=[backup])
    with pytest.raises(LMServerError):
        complete(broken, ASK)


def test_equal_requests_at_the_same_time_are_sent_once(fake: Fake, client: LMClient) -> None:
    """collaboration: 4 threads and 4 tasks share one flight (I6)."""
    gate = threading.Event()

    def answer(messages: list[dict[str, Any]]) -> str:
        gate.wait(10)
        return "shared"

    lm = fake(answer, cache=True)
    texts: list[str] = []
    threads = [threading.Thread(target=lambda: texts.append(client.complete(lm, ASK).text)) for _ in range(4)]

    async def tasks() -> list[Completion]:
        calls = [asyncio.create_task(client.acomplete(lm, ASK)) for _ in range(4)]
        while sum(map(len, client._services.single_flight._followers.values())) < 7:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        gate.set()
        return await asyncio.gather(*calls)

    for thread in threads:
        thread.start()
    texts += [answer.text for answer in asyncio.run(tasks())]
    for thread in threads:
        thread.join()
    assert texts == ["shared"] * 8
    assert len(lm.requests) == 1
    assert client.usage.total.requests == 1


def test_cancelled_leader_hands_over_to_a_follower(fake: Fake, client: LMClient) -> None:
    """collaboration: the follower asks itself and gets its answer (I6)."""
    lm = fake([FakeReply(hang=True), "second"], cache=True)

    async def run() -> str:
        leader = asyncio.create_task(client.acomplete(lm, ASK))
        await asyncio.to_thread(lm.wait_for, lambda: len(lm.requests) == 1)
        follower = asyncio.create_task(client.acomplete(lm, ASK))
        while not any(client._services.single_flight._followers.values()):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        leader.cancel()
        answer = await follower
        with pytest.raises(asyncio.CancelledError):
            await leader
        return answer.text

    assert asyncio.run(run()) == "second"


def test_followers_share_a_failure_but_not_its_traceback(fake: Fake, client: LMClient) -> None:
    """collaboration: one request, two callers, two error objects."""
    gate = threading.Event()

    def answer(messages: list[dict[str, Any]]) -> FakeReply:
        gate.wait(10)
        return FakeReply(status=401)

    lm = fake(answer, cache=True)
    errors: list[LMError] = []

    def call() -> None:
        try:
            client.complete(lm, ASK)
        except LMError as error:
            errors.append(error)

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while not any(client._services.single_flight._followers.values()) and time.monotonic() < deadline:
        threading.Event().wait(0.001)
    gate.set()
    for thread in threads:
        thread.join()
    assert [type(error) for error in errors] == [LMAuthError, LMAuthError]
    assert errors[0] is not errors[1]
    assert len(lm.requests) == 1


def test_budget_stops_the_next_request(fake: Fake, complete: Complete, client: LMClient) -> None:
    """collaboration: tokens and money, per scope; the ledger says who used what."""
    lm = fake("x", price=(1_000_000, 0))
    with Account("job", budget_tokens=1) as scope:
        complete(lm, ASK)
        with pytest.raises(BudgetExceeded) as caught:
            complete(lm, ASK)
    assert (caught.value.scope, caught.value.unit) == ("job", "tokens")
    assert scope.usage[lm.model]["prompt_tokens"] == scope.cost_usd > 0
    with Account("rich", budget_usd=1e9):
        complete(lm, ASK)
    assert client.usage.total.requests == 2


def test_requests_are_spaced_by_the_rate_limit(fake: Fake, complete: Complete) -> None:
    """collaboration: a wait that cannot end before the deadline fails at once."""
    lm = fake("x", requests_per_minute=60)
    complete(lm, ASK)
    with pytest.raises(LMTimeoutError, match="requests_per_minute"):
        complete(lm, ASK, deadline=time.monotonic() + 0.2)
    assert len(lm.requests) == 1


def test_dead_endpoint_is_left_alone(client: LMClient) -> None:
    """collaboration: after ten failures in a row nobody dials for a while."""
    lm = LM("openai/x", api_base="http://127.0.0.1:9/v1", api_key="k", retries=0, cache=False)
    for _ in range(TRIP_AFTER):
        with pytest.raises(LMTransportError, match="No answer"):
            client.complete(lm, ASK)
    with pytest.raises(LMTransportError, match="left alone"):
        client.complete(lm, ASK)


def test_no_key_is_said_before_anything_is_sent(client: LMClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """collaboration: the message names the environment variable."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(LMNotConfiguredError, match="OPENAI_API_KEY"):
        client.complete(LM("openai/x"), ASK)


def test_keys_are_in_no_message(fake: Fake, complete: Complete) -> None:
    """collaboration: a provider that echoes the key, another key and a URL does not make us print them (X3)."""
    lm = fake("")
    echo = f"Bad key {lm.api_key}, not sk-abc12345 (see https://x.org/a?token=tt) Authorization: Bearer abcdefgh"
    other = fake([FakeReply(status=401, error={"message": echo})])
    with pytest.raises(LMAuthError) as caught:
        complete(other.replace(api_key=other.api_key, headers={"x": "y"}), ASK)
    said = str(caught.value).replace(str(lm.api_key), "")
    assert "Bad key" in said
    for secret in ("abc12345", "token=tt", "abcdefgh"):
        assert secret not in said


@pytest.mark.parametrize(
    ("messages", "config", "kind"),
    [
        ([{"role": "robot", "content": "x"}], {}, InvalidInput),
        ([{"role": "user", "content": 3}], {}, InvalidInput),
        ([{"role": "user", "content": "\ud800"}], {}, InvalidInput),
        (ASK, {"temprature": 1}, LMUnsupportedFeatureError),
        (ASK, {"api_key": "x"}, LMConfigurationError),
        (ASK, {"temperature": "hot"}, InvalidInput),
        (ASK, {"max_tokens": 1, "max_completion_tokens": 2}, LMUnsupportedFeatureError),
        ([{"role": "user", "content": [{"type": "video", "video": "x"}]}], {}, LMUnsupportedFeatureError),
    ],
)
def test_malformed_call_is_refused_before_sending(
    messages: list[dict[str, Any]], config: dict[str, Any], kind: type[Exception], fake: Fake, client: LMClient
) -> None:
    """collaboration: what no provider could read is not sent."""
    lm = fake("x")
    with pytest.raises(kind):
        client.complete(lm, messages, config=config)
    assert lm.requests == []


@pytest.mark.parametrize("model", ["openai/x", "anthropic/claude-x"])
def test_stream_gives_text_as_it_comes_and_then_the_completion(model: str, fake: Fake, client: LMClient) -> None:
    """collaboration: both dialects, threads and loops; the second time it comes from the cache."""
    lm = fake(
        [FakeReply("ab", chunks=["a", "é", "c"], reasoning=None, tool_calls=[("t", {"x": 1})])], model=model, cache=True
    )

    async def gather() -> list[str | Completion]:
        return [item async for item in client.astream(lm, ASK)]

    first, second = list(client.stream(lm, ASK)), asyncio.run(gather())
    for items, cached in ((first, False), (second, True)):
        *texts, last = items
        assert texts == ["a", "é", "c"]
        assert isinstance(last, Completion)
        assert (last.text, last.cached) == ("aéc", cached)
        assert last.tool_calls[0][0]["function"] == {"name": "t", "arguments": '{"x": 1}'}
    assert first[-1].usage["total_tokens"] > 0  # type: ignore[union-attr]
    assert len(lm.requests) == 1


def test_stream_that_breaks_is_an_error_and_not_cached(fake: Fake, client: LMClient) -> None:
    """collaboration: half an answer is no answer."""
    half = FakeReply(body=b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n')
    lm = fake([FakeReply("a b c", cut=400), half, "whole"], cache=True)
    with pytest.raises(LMTransportError):
        list(client.stream(lm, ASK))
    with pytest.raises(LMStreamAssemblyError):
        list(client.stream(lm, ASK, rollout_id=2))
    assert next(iter(client.stream(lm, ASK))) == "whole"


def test_closed_stream_closes_its_connection(fake: Fake, client: LMClient) -> None:
    """collaboration: a reader that stops early leaves nothing running, and the flight is free again."""
    slow = FakeReply("a b", chunks=["a", "b"], chunk_delay=60)
    lm = fake([slow, slow, "again"], cache=True)
    stream = client.stream(lm, ASK)
    assert next(stream) == "a"
    stream.close()
    lm.wait_for(lambda: lm.hung_up == 1)

    async def early() -> None:
        stream = client.astream(lm, ASK)
        assert await anext(stream) == "a"
        await stream.aclose()

    asyncio.run(early())
    lm.wait_for(lambda: lm.hung_up == 2)
    assert len(client._services.single_flight) == 0
    assert client.complete(lm, ASK, rollout_id=3).text == "again"


def test_client_works_in_a_forked_child(fake: Fake, client: LMClient) -> None:
    """process: cached entries stay, connections and locks are new, the parent notices nothing."""
    lm = fake(["parent", "child", "parent again"], cache=True)
    client.complete(lm, ASK)
    client.cache._lock.acquire()  # as if another thread held it at the fork
    pid = os.fork()
    if pid == 0:
        try:
            fine = client.complete(lm, ASK).cached and client.complete(lm, ASK, rollout_id=1).text == "child"
            fine = fine and asyncio.run(client.acomplete(lm, ASK, rollout_id=1)).cached
            os._exit(0 if fine else 1)
        finally:
            os._exit(2)
    client.cache._lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert client.complete(lm, ASK, rollout_id=2).text == "parent again"
