"""Unit: a worker died: whose calls fail, which run again, and what becomes of its place."""

from __future__ import annotations

from dspex.pools.state.instructions import EndReason, Start
from dspex.pools.state.records import Phase
from tests.support.pools.pool_state import NOW, Pool, facts_of, failed, of_kind, sent


def test_a_death_fails_only_the_calls_of_that_worker() -> None:
    """unit: DESIGN §6."""
    pool = Pool(size=2)
    first, second = pool.call(), pool.call()
    instructions = pool.state.died(1, NOW)
    assert failed(instructions) == [(first, EndReason.DIED)]
    assert facts_of(instructions) == {"started": "unknown"}
    assert second.phase is Phase.RUNNING


def test_a_dead_worker_is_replaced_in_its_slot_under_a_new_generation() -> None:
    """unit: DESIGN §5."""
    pool = Pool(size=2)
    assert of_kind(pool.state.died(2, NOW), Start) == [Start(3, 1)]


def test_a_call_that_cannot_have_begun_is_sent_elsewhere() -> None:
    """unit: C8."""
    pool = Pool(size=2)
    call = pool.call()
    instructions = pool.state.died(1, NOW, unstarted={call.id})
    assert sent(instructions) == [call]
    assert call.generation == 2


def test_a_redispatched_call_keeps_its_place_before_later_ones() -> None:
    """unit: C8: its order is that of its submission."""
    pool = Pool()
    call = pool.call()
    pool.submit()
    pool.state.died(1, NOW, unstarted={call.id})
    assert sent(pool.make_ready()) == [call]


def test_an_idempotent_call_runs_again_once() -> None:
    """unit: DESIGN §6."""
    pool = Pool(size=3)
    call = pool.call(retries=1)
    assert sent(pool.state.died(1, NOW, by_itself=False)) == [call]
    assert failed(pool.state.died(2, NOW, by_itself=False)) == [(call, EndReason.DIED)]


def test_an_unstarted_call_of_a_stateful_strict_session_is_lost_with_it() -> None:
    """unit: C8, S6."""
    pool = Pool(size=2)
    pool.stateful("s")
    call = pool.call("s")
    instructions = pool.state.died(1, NOW, unstarted={call.id})
    assert failed(instructions) == [(call, EndReason.SESSION_LOST)]
    assert facts_of(instructions) == {"reason": "died", "generation": 1}
