"""Unit: calls that their callers gave up: never sent, or cancelled, and what becomes of their workers."""

from __future__ import annotations

from dspex.pools.state.instructions import Cancel, Emit, EndReason, Kill, Start
from dspex.pools.state.records import Phase
from tests.support.pools.pool_state import NOW, Pool, events, failed, of_kind, sent


def test_an_abandoned_queued_call_is_never_sent() -> None:
    """unit: C6, DESIGN §6."""
    pool = Pool()
    running = pool.call()
    gone, _ = pool.submit()
    stays, _ = pool.submit()
    assert pool.state.abandon(gone, NOW) == []
    assert sent(pool.state.finished(running, NOW)) == [stays]


def test_an_abandoned_running_call_is_cancelled_at_once_and_keeps_its_slot() -> None:
    """unit: K0, K1."""
    pool = Pool()
    call = pool.call()
    told = pool.state.abandon(call, NOW)
    assert of_kind(told, Cancel) == [Cancel(1, call.id)]
    assert [event.event for event in of_kind(told, Emit)] == ["call.abandoned"]
    assert pool.submit()[1] == []
    assert pool.state.workers[1].load == 1


def test_an_abandoned_call_that_ends_within_the_grace_leaves_its_worker_in_service() -> None:
    """unit: K1."""
    pool = Pool()
    call = pool.call()
    pool.state.abandon(call, NOW)
    waiting, _ = pool.submit()
    assert sent(pool.state.finished(call, NOW + 0.5)) == [waiting]
    assert of_kind(pool.state.tick(NOW + 2.0), Kill) == []


def test_after_the_grace_a_worker_of_one_call_is_killed() -> None:
    """unit: K3."""
    pool = Pool()
    pool.state.abandon(pool.call(), NOW)
    assert pool.state.due == NOW + 1.0
    assert of_kind(pool.state.tick(NOW + 1.0), Kill) == [Kill(1, "cancel_grace")]


def test_after_the_grace_a_worker_of_many_calls_retires_and_a_spare_starts() -> None:
    """unit: K3."""
    pool = Pool(concurrency=4)
    stuck, neighbor = pool.call(), pool.call()
    pool.state.abandon(stuck, NOW)
    pool.state.pong(1)
    instructions = pool.state.tick(NOW + 1.0)
    assert of_kind(instructions, Start) == [Start(2, 0)]
    assert of_kind(instructions, Kill) == []
    assert neighbor.phase is Phase.RUNNING


def test_a_retiring_worker_gets_no_new_calls_and_is_killed_when_the_others_have_ended() -> None:
    """unit: K3."""
    pool = Pool(concurrency=4)
    stuck, neighbor = pool.call(), pool.call()
    pool.state.abandon(stuck, NOW)
    pool.state.pong(1)
    pool.state.tick(NOW + 1.0)
    assert sent(pool.submit()[1]) == []
    assert of_kind(pool.state.finished(neighbor, NOW + 2.0), Kill) == [Kill(1, "cancel_grace")]


def test_a_worker_without_a_sign_of_life_is_killed_while_a_cancel_is_pending() -> None:
    """unit: K4."""
    pool = Pool(concurrency=4)
    stuck = pool.call()
    pool.call()
    pool.state.abandon(stuck, NOW)
    assert of_kind(pool.state.tick(NOW + 1.0), Kill) == [Kill(1, f"unresponsive:{stuck.id}")]


def test_a_retiring_worker_is_asked_for_life_again_and_killed_when_it_falls_silent() -> None:
    """unit: K4: the GIL may be taken for ever after the first PONG."""
    pool = Pool(concurrency=4)
    stuck = pool.call()
    pool.call()
    pool.state.abandon(stuck, NOW)
    pool.state.pong(1)
    assert Cancel(1, stuck.id) in pool.state.tick(NOW + 1.0)
    assert of_kind(pool.state.tick(NOW + 2.0), Kill) == [Kill(1, f"unresponsive:{stuck.id}")]


def test_neighbours_of_a_killed_worker_earn_no_strike_and_idempotent_ones_run_again() -> None:
    """unit: K4."""
    pool = Pool(size=2, concurrency=2)
    stuck, plain = pool.call(packed=b"x"), None
    pool.call()
    plain = pool.call()
    pool.state.abandon(stuck, NOW)
    pool.state.tick(NOW + 1.0)
    instructions = pool.state.died(1, NOW + 1.0, by_itself=True)
    assert failed(instructions) == [(plain, EndReason.DIED)]
    assert pool.state.poison.is_quiet


def test_at_most_size_workers_retire_and_the_oldest_is_killed() -> None:
    """unit: K5."""
    pool = Pool(concurrency=4)
    for generation in (1, 2):
        stuck = pool.call()
        pool.call()
        pool.state.abandon(stuck, NOW)
        pool.state.pong(generation)
        instructions = pool.state.tick(NOW + 1.0)
        pool.make_ready()
    assert of_kind(instructions, Kill) == [Kill(1, "too_many_retiring")]


def test_a_stateful_session_is_served_on_by_a_retiring_worker() -> None:
    """unit: K5, S8."""
    pool = Pool(concurrency=4)
    pool.stateful("s")
    stuck = pool.call()
    pool.call()
    pool.state.abandon(stuck, NOW)
    pool.state.pong(1)
    pool.state.tick(NOW + 1.0)
    assert pool.call("s").generation == 1


def test_a_worker_whose_reply_says_so_retires() -> None:
    """unit: K2: an interrupt may have left a lock held."""
    pool = Pool(concurrency=2)
    call, neighbor = pool.call(), pool.call()
    instructions = pool.state.finished(call, NOW, retire="interrupted")
    assert events(instructions) == ["worker.retiring"]
    assert of_kind(instructions, Start) == [Start(2, 0)]
    assert of_kind(pool.state.finished(neighbor, NOW), Kill) == [Kill(1, "interrupted")]
