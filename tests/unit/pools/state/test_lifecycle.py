"""Unit: planned changes: recycling, draining, resizing, closing and other settings."""

from __future__ import annotations

from dspex.pools.state import invariants
from dspex.pools.state.instructions import Emit, EndReason, Fail, Kill, Send, Start, Stop
from dspex.pools.state.records import Phase
from tests.support.pools.pool_state import NOW, Pool, events, facts_of, failed, of_kind, sent


def test_workers_are_recycled_one_at_a_time_with_the_spare_ready_first() -> None:
    """unit: DESIGN §5, S8."""
    pool = Pool(size=2)
    assert of_kind(pool.state.recycle(NOW), Start) == [Start(3, 0)]
    assert of_kind(pool.make_ready(), Stop) == [Stop(1, "recycled")]
    assert of_kind(pool.state.tick(NOW + 1.0), Start) == []
    assert of_kind(pool.state.died(1, NOW + 1.0), Start) == [Start(4, 1)]
    assert of_kind(pool.make_ready(), Stop) == [Stop(2, "recycled")]
    pool.state.died(2, NOW + 1.0)
    assert sorted(pool.state.workers) == [3, 4]
    assert not pool.state.is_recycling


def test_a_worker_is_recycled_after_so_many_calls() -> None:
    """unit: DESIGN §5 recycle_after_calls."""
    pool = Pool(recycle_after_calls=2)
    pool.state.finished(pool.call(), NOW)
    instructions = pool.state.finished(pool.call(), NOW)
    assert events(instructions) == ["worker.recycling"]
    assert of_kind(instructions, Start) == [Start(2, 0)]


def test_a_worker_is_recycled_at_its_age_give_or_take_a_tenth() -> None:
    """unit: DESIGN §5 recycle_after_age."""
    pool = Pool(size=4, recycle_after_age=1000.0)
    ages = {worker.recycle_at - NOW for worker in pool.state.workers.values() if worker.recycle_at}
    assert len(ages) == 4
    assert all(900.0 <= age <= 1100.0 for age in ages)
    pool.state.tick(NOW + 60.0)
    assert pool.state.due == NOW + min(ages)
    assert "worker.recycling" in events(pool.state.tick(pool.state.due))


def test_a_worker_is_recycled_when_it_uses_too_much_memory() -> None:
    """unit: DESIGN §5 recycle_after_memory."""
    pool = Pool(recycle_after_memory=1000)
    assert pool.state.measured(1, 999, NOW) == []
    assert "worker.recycling" in events(pool.state.measured(1, 1000, NOW))


def test_a_drained_worker_finishes_its_calls_and_gets_no_new_ones() -> None:
    """unit: S8."""
    pool = Pool()
    running = pool.call()
    pool.state.recycle(NOW)
    assert of_kind(pool.make_ready(), Stop) == []
    assert pool.call().generation == 2
    assert of_kind(pool.state.finished(running, NOW), Stop) == [Stop(1, "recycled")]


def test_a_planned_stop_never_kills_a_call_that_runs_longer_than_session_drain() -> None:
    """unit: S8: session_drain bounds sessions, not calls."""
    pool = Pool(session_drain=10.0)
    running = pool.call()
    pool.state.recycle(NOW)
    pool.make_ready()
    for now in (NOW + 10.0, NOW + 100.0, NOW + 5000.0):
        assert of_kind(pool.state.tick(now), Stop) == of_kind(pool.state.tick(now), Kill) == []
    assert of_kind(pool.state.finished(running, NOW + 5000.0), Stop) == [Stop(1, "recycled")]


def test_a_draining_worker_serves_its_stateful_sessions_until_they_end() -> None:
    """unit: S8."""
    pool = Pool()
    pool.stateful("s")
    pool.state.recycle(NOW)
    pool.make_ready()
    call = pool.call("s")
    assert call.generation == 1
    pool.state.finished(call, NOW)
    assert of_kind(pool.state.close_session("s", NOW), Stop) == [Stop(1, "recycled")]


def test_after_session_drain_the_sessions_left_are_lost_as_recycled() -> None:
    """unit: S8."""
    pool = Pool(session_drain=10.0)
    pool.stateful("s")
    pool.state.recycle(NOW)
    pool.make_ready()
    instructions = pool.state.tick(NOW + 10.0)
    assert "session.lost" in events(instructions)
    assert of_kind(instructions, Stop) == [Stop(1, "recycled")]
    assert facts_of(pool.submit("s")[1])["reason"] == "recycled"


def test_a_durable_session_leaves_a_draining_worker_at_once_with_its_state() -> None:
    """unit: S8."""
    pool = Pool()
    pool.state.open_session("s", NOW, is_durable=True)
    pool.stateful("s")
    pool.state.recycle(NOW)
    assert of_kind(pool.make_ready(), Stop) == [Stop(1, "recycled")]
    call, instructions = pool.submit("s")
    assert instructions == [Send(call, 2, "s")]


def test_growing_starts_workers_and_shrinking_drains_those_that_hold_least() -> None:
    """unit: DESIGN §4 resize."""
    pool = Pool(size=2)
    pool.stateful("s")
    assert of_kind(pool.state.resize(3, NOW), Start) == [Start(3, 2)]
    pool.make_ready()
    assert of_kind(pool.state.resize(1, NOW), Stop) == [Stop(3, "resized"), Stop(2, "resized")]
    assert pool.call("s").generation == 1


def test_shrinking_prefers_the_worker_that_is_being_recycled() -> None:
    """unit: DESIGN §4 resize."""
    pool = Pool(size=2)
    pool.state.recycle(NOW, generations=[1])
    instructions = pool.state.resize(1, NOW)
    assert of_kind(instructions, Stop) == [Stop(1, "resized")]
    assert of_kind(instructions, Kill) == [Kill(3, "resized")]


def test_close_ends_what_was_not_sent_and_refuses_the_rest() -> None:
    """unit: DESIGN §6 PoolClosed."""
    pool = Pool()
    running = pool.call("s", "write")
    queued, waiting = pool.submit()[0], pool.submit("s")[0]
    assert failed(pool.state.close(NOW)) == [(queued, EndReason.CLOSED), (waiting, EndReason.CLOSED)]
    late, instructions = pool.submit()
    assert failed(instructions) == [(late, EndReason.CLOSED)]
    assert running.phase is Phase.RUNNING


def test_a_closed_pool_starts_no_more_workers() -> None:
    """unit: DESIGN §5."""
    pool = Pool()
    pool.state.close(NOW)
    assert of_kind(pool.state.died(1, NOW), Start) == []


def test_a_pool_that_drains_still_replaces_workers_for_the_calls_it_took() -> None:
    """unit: no new calls, but those that were taken are served."""
    pool = Pool()
    pool.call()
    queued, _ = pool.submit()
    pool.state.is_closed = True
    assert of_kind(pool.state.died(1, NOW), Start) == [Start(2, 0)]
    assert sent(pool.make_ready()) == [queued]


def test_stopped_workers_are_killed_after_the_stop_grace() -> None:
    """unit: DESIGN §5 stop_grace."""
    pool = Pool()
    pool.call()
    pool.state.close(NOW)
    assert pool.state.stop_workers(NOW) == [Stop(1, "stopped")]
    assert of_kind(pool.state.tick(NOW + 9.9), Kill) == []
    assert of_kind(pool.state.tick(NOW + 10.0), Kill) == [Kill(1, "stop_grace")]


def test_a_worker_that_has_not_started_yet_is_killed_by_a_stop() -> None:
    """unit: it would read the STOP only after its boot."""
    pool = Pool(is_ready=False)
    pool.state.close(NOW)
    assert pool.state.stop_workers(NOW) == [Kill(1, "stopped")]


def test_other_rules_count_at_once_and_refuse_nothing_that_was_taken() -> None:
    """Unit: a shorter queue refuses the next call, not those that stand there."""
    pool = Pool(queue_limit=10)
    running = pool.call()
    waiting = [pool.submit()[0] for _ in range(5)]
    assert not [i for i in pool.state.adopt(pool.rules(queue_limit=2), NOW) if isinstance(i, Fail)]
    _, refused = pool.submit()
    assert [i.why for i in refused if isinstance(i, Fail)] == [EndReason.SATURATED]
    for call in waiting:
        assert sent(pool.state.finished(running, NOW)) == [call]
        running = call


def test_a_worker_never_runs_more_than_it_was_made_for() -> None:
    """Unit (C8): a higher concurrency counts for the workers that start from now on."""
    pool = Pool(concurrency=1)
    pool.call()
    pool.state.adopt(pool.rules(concurrency=3, size=2), NOW)
    waiting = [pool.submit()[0] for _ in range(3)]
    assert sent(pool.make_ready()) == waiting
    assert {call.generation for call in waiting} == {2}


def test_a_larger_size_and_another_age_take_effect() -> None:
    """Unit: workers start, and those that are there grow old by the new rule."""
    pool = Pool()
    started = of_kind(pool.state.adopt(pool.rules(size=3, recycle_after_age=100.0), NOW), Start)
    assert len(started) == 2
    pool.make_ready()
    recycling = [i for i in pool.state.tick(NOW + 111) if isinstance(i, Emit) and i.event == "worker.recycling"]
    assert len(recycling) == 1


def test_calls_of_a_session_with_state_go_home_when_hint_becomes_strict() -> None:
    """Unit (S5): what stood for any worker stands for the one that holds the state."""
    pool = Pool(size=2, affinity="hint")
    pool.stateful("s")
    home = pool.state.sessions["s"].pin
    busy = [pool.call() for _ in range(2)]
    call, _ = pool.submit("s", "write")
    pool.state.adopt(pool.rules(size=2, affinity="strict_queue"), NOW)
    invariants.check(pool.state)
    away = next(call for call in busy if call.generation != home)
    assert sent(pool.state.finished(away, NOW)) == []
    assert sent(pool.state.finished(next(call for call in busy if call is not away), NOW)) == [call]


def test_fewer_sessions_are_allowed_once_there_is_room() -> None:
    """Unit (S7): sessions without state go, the longest unused first; those with state stay."""
    pool = Pool(concurrency=8, session_limit=10)
    pool.stateful("kept")
    for key in ("a", "b", "c"):
        pool.state.finished(pool.call(key), NOW)
    pool.state.adopt(pool.rules(concurrency=8, session_limit=2), NOW)
    pool.call("d")
    assert set(pool.state.sessions) == {"kept", "d"}
