"""Unit: sessions: where their calls go, in which order, and when their state is lost."""

from __future__ import annotations

import pytest

from dspex.pools.state.instructions import DropSession, EndReason, Send
from dspex.pools.state.records import Phase
from tests.support.pools.pool_state import NOW, Pool, events, facts_of, failed, sent


def test_a_stateful_session_waits_for_its_worker() -> None:
    """unit: S5 strict_queue."""
    pool = Pool(size=2)
    pool.stateful("s")
    elsewhere, running = pool.call(), pool.call()
    assert (elsewhere.generation, running.generation) == (2, 1)
    pool.state.finished(elsewhere, NOW)
    call, instructions = pool.submit("s")
    assert instructions == []
    assert sent(pool.state.finished(running, NOW)) == [call]
    assert call.generation == 1


def test_a_session_without_state_moves_silently() -> None:
    """unit: S4."""
    pool = Pool(size=2)
    pool.state.finished(pool.call("s"), NOW)
    elsewhere, _ = pool.call(), pool.call()
    pool.state.finished(elsewhere, NOW)
    call, instructions = pool.submit("s")
    assert sent(instructions) == [call]
    assert call.generation == 2
    assert events(instructions) == ["session.moved"]


def test_with_hint_a_session_moves_even_with_state() -> None:
    """unit: S5 hint makes no promise about state."""
    pool = Pool(size=2, affinity="hint")
    pool.stateful("s")
    elsewhere, _ = pool.call(), pool.call()
    pool.state.finished(elsewhere, NOW)
    assert pool.call("s").generation == 2


def test_with_hint_the_death_of_a_worker_loses_no_session() -> None:
    """unit: S5."""
    pool = Pool(size=2, affinity="hint")
    pool.stateful("s")
    pool.state.died(1, NOW)
    assert pool.call("s").generation == 2


def test_with_strict_fail_fast_a_busy_session_refuses_at_once() -> None:
    """unit: S5."""
    pool = Pool(size=2, affinity="strict_fail_fast")
    pool.stateful("s")
    pool.call("s")
    call, instructions = pool.submit("s")
    assert failed(instructions) == [(call, EndReason.SESSION_BUSY)]


def test_calls_of_a_session_start_in_submission_order() -> None:
    """unit: S3."""
    pool = Pool(size=2)
    blockers = [pool.call(), pool.call()]
    first, second = pool.submit("s")[0], pool.submit("s")[0]
    assert sent(pool.state.finished(blockers[0], NOW)) == [first]
    assert second.phase is not Phase.RUNNING
    assert sent(pool.state.finished(blockers[1], NOW)) == [second]


def test_a_first_call_that_had_to_queue_pins_those_behind_it() -> None:
    """unit: S2."""
    pool = Pool(size=2, concurrency=2)
    blockers = [pool.call() for _ in range(4)]
    first, second = pool.submit("s", "write")[0], pool.submit("s", "write")[0]
    assert sent(pool.state.finished(blockers[1], NOW)) == [first]
    pool.state.finished(blockers[0], NOW)
    assert sent(pool.state.finished(first, NOW, held=True)) == [second]
    assert first.generation == second.generation == 2


def test_a_writer_runs_alone_in_its_session() -> None:
    """unit: S3."""
    pool = Pool(concurrency=4)
    reader = pool.call("s", "read")
    writer, instructions = pool.submit("s", "write")
    assert instructions == []
    behind, _ = pool.submit("s", "read")
    assert sent(pool.state.finished(reader, NOW)) == [writer]
    assert sent(pool.state.finished(writer, NOW, held=True)) == [behind]


def test_readers_of_a_session_overlap() -> None:
    """unit: S3."""
    pool = Pool(concurrency=4)
    assert pool.call("s", "read").generation == pool.call("s", "read").generation


def test_the_death_of_its_worker_loses_a_stateful_session_for_queued_and_later_calls() -> None:
    """unit: S6."""
    pool = Pool(size=2)
    pool.stateful("s")
    running = pool.call("s", "write")
    queued, _ = pool.submit("s")
    instructions = pool.state.died(1, NOW)
    assert failed(instructions) == [(running, EndReason.DIED), (queued, EndReason.SESSION_LOST)]
    later, instructions = pool.submit("s", now=NOW + 9.0)
    assert failed(instructions) == [(later, EndReason.SESSION_LOST)]
    assert facts_of(instructions) == {"reason": "died", "generation": 1}


def test_a_lost_session_lives_again_when_it_is_opened_fresh() -> None:
    """unit: S6."""
    pool = Pool(size=2)
    pool.stateful("s")
    pool.state.died(1, NOW)
    pool.state.open_session("s", NOW)
    assert failed(pool.submit("s")[1])
    pool.state.open_session("s", NOW, fresh=True)
    pool.call("s")


def test_a_supervisors_kill_loses_sessions_as_killed() -> None:
    """unit: S6 reasons."""
    pool = Pool()
    pool.stateful("s")
    pool.state.abandon(pool.call(), NOW)
    pool.state.tick(NOW + 1.0)
    pool.state.died(1, NOW + 1.0, by_itself=False)
    assert facts_of(pool.submit("s")[1])["reason"] == "killed"


def test_a_durable_session_is_restored_in_its_next_worker() -> None:
    """unit: S9."""
    pool = Pool(size=2)
    pool.state.open_session("s", NOW, is_durable=True)
    pool.stateful("s")
    pool.state.died(1, NOW)
    first, instructions = pool.submit("s")
    assert instructions == [Send(first, 2, "s")]
    pool.state.finished(first, NOW)
    second, instructions = pool.submit("s")
    assert instructions == [Send(second, 2, None)]


def test_calls_queued_in_a_durable_session_survive_the_death_of_its_worker() -> None:
    """unit: S9."""
    pool = Pool(size=2)
    pool.state.open_session("s", NOW, is_durable=True)
    pool.stateful("s")
    running = pool.call("s", "write")
    queued, _ = pool.submit("s")
    instructions = pool.state.died(1, NOW)
    assert failed(instructions) == [(running, EndReason.DIED)]
    assert Send(queued, 2, "s") in instructions


def test_a_session_that_has_state_already_cannot_become_durable() -> None:
    """unit: S9: the supervisor's copy would have gaps."""
    pool = Pool(size=2)
    pool.stateful("s")
    pool.state.open_session("s", NOW, is_durable=True)
    pool.state.died(1, NOW)
    assert failed(pool.submit("s")[1])[0][1] is EndReason.SESSION_LOST


def test_closing_a_session_drops_its_state() -> None:
    """unit: S7."""
    pool = Pool()
    pool.stateful("s")
    assert pool.state.close_session("s", NOW) == [DropSession(1, "s")]
    assert pool.state.sessions == {}


def test_a_call_after_close_never_sees_the_former_state() -> None:
    """unit: S7: the old life ends before the new one begins."""
    pool = Pool(concurrency=4)
    running = pool.call("s", "write")
    pool.state.close_session("s", NOW)
    after, instructions = pool.submit("s")
    assert instructions == []
    assert pool.state.finished(running, NOW, held=True) == [DropSession(1, "s"), Send(after, 1, None)]


def test_opening_fresh_ends_the_queued_calls_of_the_former_life() -> None:
    """unit: S6."""
    pool = Pool()
    pool.call("s", "write")
    queued, _ = pool.submit("s")
    instructions = pool.state.open_session("s", NOW, fresh=True)
    assert failed(instructions) == [(queued, EndReason.SESSION_LOST)]


def test_a_session_expires_a_ttl_after_the_end_of_its_last_call_and_is_lost() -> None:
    """unit: S7, S6."""
    pool = Pool(session_ttl=100.0)
    call = pool.call("s", "write")
    pool.state.finished(call, NOW + 500.0, held=True)
    pool.state.tick(NOW + 590.0)
    assert not pool.state.sessions["s"].lost
    assert DropSession(1, "s") in pool.state.tick(NOW + 611.0)
    assert facts_of(pool.submit("s")[1])["reason"] == "expired"


def test_a_session_with_a_call_running_never_expires() -> None:
    """unit: S7."""
    pool = Pool(session_ttl=100.0)
    pool.stateful("s")
    pool.call("s")
    pool.state.tick(NOW + 5000.0)
    assert pool.state.sessions["s"].is_stateful


def test_at_the_limit_the_least_recently_used_session_without_state_goes() -> None:
    """unit: S7."""
    pool = Pool(concurrency=4, session_limit=3)
    for key in "abc":
        pool.state.finished(pool.call(key), NOW)
    pool.state.finished(pool.call("a"), NOW)
    pool.call("d")
    assert sorted(pool.state.sessions) == ["a", "c", "d"]


def test_at_the_limit_with_state_everywhere_a_new_session_is_refused() -> None:
    """unit: S7."""
    pool = Pool(session_limit=2)
    pool.stateful("a")
    pool.stateful("b")
    call, instructions = pool.submit("c")
    assert failed(instructions) == [(call, EndReason.SESSION_LIMIT)]
    with pytest.raises(KeyError):
        pool.state.open_session("d", NOW)
