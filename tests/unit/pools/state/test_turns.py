"""Unit: those who share a pool take turns, however many calls one of them has."""

from __future__ import annotations

from collections import Counter

import pytest

from dspex.pools.state.instructions import EndReason
from dspex.pools.state.records import CallRecord
from dspex.pools.state.turns import SHARES_MOST, Turns
from tests.support.pools.pool_state import NOW, Pool, failed, sent


def served_in_order(pool: Pool, running: CallRecord, count: int) -> list[str]:
    """Finish one call after the other; return the shares of those that are sent."""
    order = []
    for _ in range(count):
        [running] = sent(pool.state.finished(running, NOW))
        order.append(running.share)
    return order


def test_a_share_alone_is_served_in_order() -> None:
    """unit: as a pool that nobody shares."""
    pool = Pool()
    running = pool.call(share="a")
    calls = [pool.submit(share="a")[0] for _ in range(20)]
    for call in calls:
        assert sent(pool.state.finished(running, NOW)) == [call]
        running = call


def test_a_late_share_waits_for_one_call_of_each_other() -> None:
    """unit: not for the hundred that were there before."""
    pool = Pool()
    running = pool.call(share="greedy")
    for _ in range(100):
        pool.submit(share="greedy")
    for share in ("b", "c", ""):
        for _ in range(3):
            pool.submit(share=share)
    order = served_in_order(pool, running, 109)
    assert all(set(order[start : start + 4]) == {"greedy", "b", "c", ""} for start in (0, 4, 8))
    assert order[12:] == ["greedy"] * 97


def test_a_share_that_was_away_gets_no_more_than_its_turn() -> None:
    """unit: time without calls is not saved up."""
    pool = Pool()
    running = pool.call(share="a")
    for _ in range(50):
        pool.submit(share="a")
    for _ in range(40):
        [running] = sent(pool.state.finished(running, NOW))
    for _ in range(10):
        pool.submit(share="b")
    assert Counter(served_in_order(pool, running, 10)) == {"a": 5, "b": 5}


def test_each_share_has_its_part_of_a_full_queue() -> None:
    """unit: who filled it is refused, others are not, up to their part."""
    pool = Pool(queue_limit=10)
    pool.call(share="greedy")
    for _ in range(10):
        pool.submit(share="greedy")
    assert failed(pool.submit(share="greedy")[1])[0][1] is EndReason.SATURATED
    for _ in range(5):
        assert not failed(pool.submit(share="b")[1])
    assert failed(pool.submit(share="b")[1])[0][1] is EndReason.SATURATED
    assert not failed(pool.submit(share="c")[1])


def test_turns_of_many_shares_are_distinct_and_forgotten() -> None:
    """unit: thousands of clients come and go."""
    turns, given = Turns(), set()
    for number in range(10 * SHARES_MOST):
        call = CallRecord(number, share=f"client {number}")
        call.turn = turns.give(call.share)
        given.add(call.turn)
        turns.served(call)
    assert len(given) == 10 * SHARES_MOST and len(turns._last) <= SHARES_MOST + 1


@pytest.mark.parametrize("session", [None, "s"])
def test_a_session_takes_the_turns_of_its_share(session: str | None) -> None:
    """unit: the calls of a session stand behind each other, and take their share's turn then."""
    pool = Pool()
    running = pool.call(share="a")
    for _ in range(5):
        pool.submit(session, "write" if session else None, share="a")
    for _ in range(5):
        pool.submit(share="b")
    order = served_in_order(pool, running, 6)
    assert Counter(order) == {"a": 3, "b": 3}
