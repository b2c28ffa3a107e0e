"""Unit: what a signal handler that raised in the middle of a change leaves, and what becomes of the calls (C5, C6)."""

from __future__ import annotations

from dspex.pools.state import invariants
from dspex.pools.state.instructions import DropSession, Fail, Send
from dspex.pools.state.records import CallRecord
from dspex.pools.state.recovery import repair
from tests.support.pools.pool_state import NOW, Pool, sent


def mended(pool: Pool, running: list[CallRecord], queued: list[CallRecord]) -> list[object]:
    """Interrupt the pool where only `running` had been sent, and mend it."""
    instructions = repair(pool.state, [*queued, *running], {1: [call.id for call in running]}, NOW)
    invariants.check(pool.state)
    return [one for one in instructions if isinstance(one, Send | Fail | DropSession)]


def test_a_draining_pool_keeps_what_it_has_taken() -> None:
    """Unit: it takes no new calls, and these are not new."""
    pool = Pool()
    running = pool.call()
    queued = [pool.submit()[0] for _ in range(3)]
    pool.state.is_closed = True
    assert mended(pool, [running], queued) == []
    assert sent(pool.state.finished(running, NOW)) == [queued[0]]
    assert sent(pool.state.finished(queued[0], NOW)) == [queued[1]]


def test_a_queue_that_was_made_shorter_keeps_what_stands_there() -> None:
    """Unit: as `adopt` does."""
    pool = Pool(queue_limit=5)
    running = pool.call()
    queued = [pool.submit()[0] for _ in range(5)]
    pool.state.adopt(pool.rules(queue_limit=2), NOW)
    assert mended(pool, [running], queued) == []
    assert pool.state.queued == 5


def test_queued_calls_of_a_closed_session_see_its_state_and_later_ones_do_not() -> None:
    """Unit (S7): their order says to which life they belong; the state goes when the last of the old one has ended."""
    pool = Pool()
    pool.stateful("s")
    running = pool.call()
    old, _ = pool.submit("s", "write")
    pool.state.close_session("s", NOW)
    new, _ = pool.submit("s", "write")
    assert mended(pool, [running], [old, new]) == []
    assert sent(pool.state.finished(running, NOW)) == [old]
    assert pool.state.finished(old, NOW, held=True) == [DropSession(1, "s"), Send(new, 1, None)]
    invariants.check(pool.state)


def test_a_life_that_had_ended_is_over_and_the_next_goes_on() -> None:
    """Unit (S7): nothing of the old one is left, so its state goes before the new one's first call."""
    pool = Pool()
    pool.stateful("s")
    record = pool.state.sessions["s"]
    record.ends.append(pool.state.order)  # interrupted in the middle of closing it
    record.is_closing = True
    new = pool.new_call("s", "write")
    assert mended(pool, [], [new]) == [DropSession(1, "s"), Send(new, 1, None)]


def test_a_call_that_was_just_coming_comes_last() -> None:
    """Unit (S3): it had no order yet; those of its session that stood there are before it."""
    pool = Pool()
    running = pool.call("s", "write")
    waiting, _ = pool.submit("s", "write")
    coming = pool.new_call("s", "write")
    assert mended(pool, [running], [coming, waiting]) == []
    assert sent(pool.state.finished(running, NOW)) == [waiting]
    assert sent(pool.state.finished(waiting, NOW)) == [coming]


def test_with_strict_fail_fast_a_call_that_stands_is_not_busy() -> None:
    """Unit (S5): it was let in when it came."""
    pool = Pool(affinity="strict_fail_fast", size=1)
    running = pool.call()
    queued, _ = pool.submit("s", "write")
    pool.state.sessions["s"].is_stateful = True
    pool.state.sessions["s"].pin = pool.state.sessions["s"].generation = 1
    pool.state.workers[1].sessions.add("s")
    assert mended(pool, [running], [queued]) == []
    assert sent(pool.state.finished(running, NOW)) == [queued]
