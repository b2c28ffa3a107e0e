"""Unit: calls that kill their workers: suspects, twins, quarantine and forgiveness."""

from __future__ import annotations

from dspex.pools.state.instructions import EndReason
from dspex.pools.state.poison import QUARANTINE
from dspex.pools.state.records import CallRecord
from tests.support.pools.pool_state import NOW, Pool, facts_of, failed, sent


def test_two_strikes_make_a_poison_call() -> None:
    """unit: C7b."""
    pool = Pool(size=3)
    for generation in (1, 2):
        pool.call(packed=b"x")
        pool.state.died(generation, NOW)
    call, instructions = pool.submit(packed=b"x", now=NOW + 1.0)
    assert failed(instructions) == [(call, EndReason.POISON)]
    facts = facts_of(instructions)
    assert facts == {
        "digest": call.digest(),
        "strikes": 2,
        "until": NOW + QUARANTINE,
        "until_s": QUARANTINE - 1.0,
    }


def test_a_poison_call_is_let_in_again_after_ten_minutes_or_forgiveness() -> None:
    """unit: C7b."""
    pool = Pool(size=4)
    for generation in (1, 2):
        digest = pool.call(packed=b"x").digest()
        pool.state.died(generation, NOW)
    assert pool.state.poison.forgive(digest)
    pool.call(packed=b"x")
    assert not pool.state.poison.forgive(digest)


def test_kills_more_than_ten_minutes_apart_do_not_add_up() -> None:
    """unit: C7b."""
    pool = Pool(size=3)
    for generation, now in ((1, NOW), (2, NOW + QUARANTINE)):
        pool.call(packed=b"x", now=now)
        pool.state.died(generation, now)
    pool.call(packed=b"x", now=NOW + QUARANTINE)


def test_kills_by_the_supervisor_and_from_outside_are_no_strikes() -> None:
    """unit: C7b."""
    pool = Pool(size=3)
    for generation in (1, 2):
        pool.call(packed=b"x")
        pool.state.died(generation, NOW, by_itself=False)
    pool.call(packed=b"x")


def test_a_death_with_several_calls_makes_them_suspects_that_run_alone() -> None:
    """unit: C7b."""
    pool = Pool(size=2, concurrency=2)
    first, other, second = pool.call(packed=b"x"), pool.call(), pool.call(packed=b"y")
    pool.state.died(1, NOW)
    assert (first.generation, other.generation, second.generation) == (1, 2, 1)
    suspect, instructions = pool.submit(packed=b"x")
    assert instructions == []
    late, instructions = pool.submit()
    assert instructions == []
    assert sent(pool.state.finished(other, NOW)) == [suspect]
    assert sent(pool.state.finished(suspect, NOW)) == [late]


def test_a_suspect_that_answered_alone_is_acquitted() -> None:
    """unit: C7b."""
    pool = Pool(concurrency=2)
    pool.call(packed=b"x")
    pool.call(packed=b"y")
    pool.state.died(1, NOW)
    pool.make_ready()
    suspect = pool.call(packed=b"x")
    assert suspect.is_alone
    pool.state.finished(suspect, NOW)
    assert not pool.call(packed=b"x").is_alone


def test_queued_twins_of_a_poison_call_are_refused_before_they_kill_more_workers() -> None:
    """unit: C7b: two kills are enough, however many are queued already."""
    pool = Pool(restart_budget=(50, 30.0))
    twins = [pool.submit(packed=b"x")[0] for _ in range(4)]
    seen: list[tuple[CallRecord, EndReason]] = []
    for generation in (1, 2):
        seen += failed(pool.state.died(generation, NOW))
        pool.state.tick(NOW + 1.0)
        seen += failed(pool.make_ready(NOW + 1.0))
    seen += failed(pool.make_ready(NOW + 1.0))
    assert [why for _, why in seen] == [EndReason.DIED, EndReason.DIED, EndReason.POISON, EndReason.POISON]
    assert {call.id for call, _ in seen} == {call.id for call in twins}


def test_deaths_by_a_poison_call_do_not_burn_the_restart_budget() -> None:
    """unit: C7b, DESIGN §6."""
    pool = Pool(size=3, restart_budget=(2, 30.0))
    for generation in (1, 2):
        pool.call(packed=b"x")
        pool.state.died(generation, NOW)
    assert pool.state.restarts.recent == 0


def test_a_call_with_its_own_nested_call_still_counts_as_alone() -> None:
    """unit: C7b, C14."""
    pool = Pool(size=2)
    outer = pool.call("s", packed=b"x")
    pool.call("s", is_nested=True)
    pool.state.died(1, NOW)
    assert pool.state.poison.is_suspect(outer)
    assert pool.state.poison.in_quarantine(NOW) == {}
