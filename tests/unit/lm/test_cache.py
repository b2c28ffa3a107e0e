"""Unit: the response cache, its disk layer, single flight and the limits, on a clock that stands still."""

from __future__ import annotations

import gc
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dspex.lm.cache import Cache, CachedReply, key_of
from dspex.lm.lm_client import LMClient
from dspex.lm.rate_limits import OPEN_S, TRIP_AFTER, Breaker, TokenBucket
from dspex.lm.record import LM
from dspex.lm.single_flight import FlightMember, SingleFlight
from dspex.testing import FakeLM
from tests.support.lm.requests import ASK

REPLY = CachedReply("application/json", b"{}")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_key_depends_on_all_that_decides_the_answer() -> None:
    """unit: endpoint, body, rollout, candidate, and for private LMs the key (I6)."""
    keys = {
        key_of("http://a/v1", b"x", rollout_id=None),
        key_of("http://b/v1", b"x", rollout_id=None),
        key_of("http://a/v1", b"y", rollout_id=None),
        key_of("http://a/v1", b"x", rollout_id=0),
        key_of("http://a/v1", b"x", rollout_id=1),
        key_of("http://a/v1", b"x", rollout_id=None, candidate=1),
        key_of("http://a/v1", b"x", rollout_id=None, secret="k1"),
        key_of("http://a/v1", b"x", rollout_id=None, secret="k2"),
        key_of("http://a/v", b"1x", rollout_id=None),
    }
    assert len(keys) == 9


def test_entry_expires() -> None:
    """unit: TTL, and one that a put overrides."""
    clock = Clock()
    cache = Cache(ttl=10, clock=clock)
    cache.put(b"a", REPLY)
    cache.put(b"b", REPLY, ttl=100)
    clock.now += 10
    assert cache.get(b"a") is None
    assert cache.get(b"b") == REPLY


def test_least_recently_used_goes_first() -> None:
    """unit: a get keeps an entry alive."""
    cache = Cache(most_entries=2)
    cache.put(b"a", REPLY)
    cache.put(b"b", REPLY)
    cache.get(b"a")
    cache.put(b"c", REPLY)
    assert [cache.get(key) is not None for key in (b"a", b"b", b"c")] == [True, False, True]


def test_bytes_are_bounded() -> None:
    """unit: big entries push out others; one that is too big is not kept."""
    cache = Cache(most_bytes=10_000)
    for number in range(50):
        cache.put(bytes([number]), CachedReply("", b"x" * 3000))
    assert len(cache) <= 3
    cache.put(b"huge", CachedReply("", b"x" * 20_000))
    assert cache.get(b"huge") is None
    assert len(cache) <= 3


def test_disk_layer_outlives_the_process_memory(tmp_path: Path) -> None:
    """unit: a second cache reads what the first wrote, without pickles, until it expires."""
    clock = Clock()
    first = Cache(path=tmp_path / "deep" / "cache.db", ttl=10, clock=clock)
    first.put(b"a", REPLY)
    first.close()
    second = Cache(path=tmp_path / "deep" / "cache.db", clock=clock)
    assert second.get(b"a") == REPLY
    second.close()
    clock.now += 11
    third = Cache(path=tmp_path / "deep" / "cache.db", clock=clock)
    assert third.get(b"a") is None
    third.clear()
    third.close()
    files = (tmp_path / "deep").iterdir()
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}, "answers are nobody else's"


def test_disk_that_is_no_database_is_given_up(tmp_path: Path) -> None:
    """unit: garbage, a directory, an impossible path: the memory layer goes on."""
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"not a database at all" * 100)
    for path in (garbage, tmp_path, Path("/proc/no/such/place")):
        cache = Cache(path=path)
        cache.put(b"a", REPLY)
        assert cache.get(b"a") == REPLY
        assert cache.get(b"b") is None
        cache.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes to read-only files")
def test_read_only_disk_is_still_read(tmp_path: Path) -> None:
    """unit: a cache baked into an image."""
    path = tmp_path / "cache.db"
    first = Cache(path=path)
    first.put(b"a", REPLY)
    first.close()
    path.chmod(stat.S_IRUSR)
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        second = Cache(path=path)
        assert second.get(b"a") == REPLY
        second.put(b"b", REPLY)
        second.close()
    finally:
        tmp_path.chmod(stat.S_IRWXU)


def test_leader_hands_over_when_it_leaves() -> None:
    """unit: the first follower leads, the others wait on (I6)."""
    flights: SingleFlight[str] = SingleFlight()
    leader, one, two = (flights.join(b"k") for _ in range(3))
    told: list[str] = []
    flights.watch(one, lambda: told.append("one"))
    flights.watch(two, lambda: told.append("two"))
    flights.leave(leader)
    assert (one.leads, two.leads, told) == (True, False, ["one"])
    flights.land(one, "answer")
    assert (two.outcome, told) == ("answer", ["one", "two"])
    assert len(flights) == 0


def test_leader_may_leave_inside_a_critical_section() -> None:
    """unit: a finalizer that fires while its own thread holds the lock does not deadlock (C11)."""
    flights: SingleFlight[str] = SingleFlight()
    leader, follower = flights.join(b"k"), flights.join(b"k")
    with flights._lock:
        flights.leave(leader)
        assert not follower.leads
    flights.join(b"other")
    assert follower.leads


class FlightMachine(RuleBasedStateMachine):
    """unit: whatever happens, a key with members has one leader, and nobody waits without one."""

    def __init__(self) -> None:
        super().__init__()
        self.flights: SingleFlight[str] = SingleFlight()
        self.members: list[FlightMember[str]] = []

    @rule(key=st.sampled_from([b"a", b"b"]))
    def join(self, key: bytes) -> None:
        self.members.append(self.flights.join(key))

    @rule(index=st.integers(0, 50))
    def leave(self, index: int) -> None:
        if self.members:
            self.flights.leave(self.members.pop(index % len(self.members)))

    @rule(key=st.sampled_from([b"a", b"b"]))
    def land(self, key: bytes) -> None:
        for member in self.members:
            if member.key == key and member.leads:
                self.flights.land(member, "done")
                self.members = [s for s in self.members if s is not member and s.outcome is None]
                return

    @invariant()
    def one_leader_for_each_key(self) -> None:
        for key in (b"a", b"b"):
            members = [member for member in self.members if member.key == key]
            assert sum(member.leads for member in members) == (1 if members else 0)
        assert len(self.flights) == len({member.key for member in self.members})


FlightMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestFlights = FlightMachine.TestCase


def test_flights_survive_threads() -> None:
    """unit: 8 threads, 4 keys; every member is settled exactly once and nothing is left."""
    flights: SingleFlight[int] = SingleFlight()
    led = [0] * 8

    def work(number: int) -> None:
        for turn in range(400):
            member = flights.join(bytes([turn % 4]))
            if not member.leads:
                done = threading.Event()
                if flights.watch(member, done.set):
                    assert done.wait(10)
            if member.leads:
                led[number] += 1
                if turn % 3:
                    flights.land(member, turn)
                else:
                    flights.leave(member)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(flights) == 0
    assert sum(led) > 0
    gc.collect()


def test_token_bucket_spaces_requests() -> None:
    """unit: a burst, then one every 1/rate seconds; reservations queue."""
    bucket = TokenBucket(rate=2.0, burst=2.0)
    assert [bucket.reserve(0.0) for _ in range(4)] == [0.0, 0.0, 0.5, 1.0]
    bucket.give_back()
    assert bucket.reserve(0.0) == 1.0
    assert bucket.reserve(100.0) == 0.0


def test_breaker_opens_and_lets_one_trial_through() -> None:
    """unit: only failures in a row open it; an answer closes it."""
    breaker = Breaker()
    for _ in range(TRIP_AFTER - 1):
        breaker.record(False, 0.0)
    breaker.record(True, 0.0)
    assert breaker.wait(0.0) == 0.0
    for _ in range(TRIP_AFTER):
        breaker.record(False, 0.0)
    assert breaker.wait(1.0) == OPEN_S - 1
    assert breaker.wait(OPEN_S) == 0.0  # the trial
    assert breaker.wait(OPEN_S) == OPEN_S  # nobody else
    breaker.record(True, OPEN_S)
    assert breaker.wait(OPEN_S) == 0.0


def test_cache_of_a_client_tells_apart_what_changes_an_answer(fake: Callable[..., FakeLM]) -> None:
    """collaboration: endpoint, query, headers (organization, tenant), options, rollout; the key of a private LM."""
    server = fake(lambda messages: "x", cache=True)
    base = {"api_base": server.api_base, "api_key": server.api_key}
    variants: list[dict[str, Any]] = [
        {},
        {"temperature": 0.5},
        {"api_base": server.api_base.replace("127.0.0.1", "localhost")},
        {"headers": {"OpenAI-Organization": "a"}},
        {"headers": {"OpenAI-Organization": "b"}},
        {"headers": {"OpenAI-Project": "b"}},
        {"headers": {"x-tenant": "1"}},
        {"private": True},
        {"max_tokens": 5},
    ]
    with LMClient() as client:
        for expected in (False, True):
            for variant in variants:
                lm = LM("openai/m", **{**base, **variant})
                assert client.complete(lm, ASK).cached is expected, variant
    assert len(server.requests) == len(variants)
