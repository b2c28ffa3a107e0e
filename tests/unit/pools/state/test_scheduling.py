"""Unit: which worker gets which call, and when: order, concurrency, full queues, turns."""

from __future__ import annotations

from dspex.pools.state.instructions import EndReason, Send
from dspex.pools.state.records import Phase
from tests.support.pools.pool_state import NOW, Pool, facts_of, failed, sent


def test_a_call_is_sent_to_a_ready_worker_at_once() -> None:
    """unit: DESIGN §3."""
    pool = Pool()
    call, instructions = pool.submit()
    assert instructions == [Send(call, 1, None)]


def test_calls_go_to_the_worker_with_the_fewest_calls() -> None:
    """unit: S2."""
    pool = Pool(size=2, concurrency=4)
    assert [pool.call().generation for _ in range(4)] == [1, 2, 1, 2]


def test_a_new_session_goes_to_the_worker_with_the_fewest_sessions() -> None:
    """unit: S2."""
    pool = Pool(size=2, concurrency=4)
    pool.state.finished(pool.call("a"), NOW)
    assert pool.call("b").generation == 2


def test_no_worker_gets_more_than_concurrency_calls() -> None:
    """unit: C8."""
    pool = Pool(concurrency=2)
    pool.call()
    pool.call()
    third, instructions = pool.submit()
    assert instructions == []
    assert third.phase is Phase.QUEUED


def test_queued_calls_are_sent_in_the_order_of_their_submission() -> None:
    """unit: DESIGN §3."""
    pool = Pool()
    running = pool.call()
    waiting = [pool.submit()[0] for _ in range(3)]
    for call in waiting:
        assert sent(pool.state.finished(running, NOW)) == [call]
        running = call


def test_a_pinned_call_and_a_free_one_are_sent_oldest_first() -> None:
    """unit: a worker's own queue and the pool's are one line in time."""
    pool = Pool()
    pool.stateful("s")
    running = pool.call()
    free, _ = pool.submit()
    pinned, _ = pool.submit("s")
    assert sent(pool.state.finished(running, NOW)) == [free]
    assert sent(pool.state.finished(free, NOW)) == [pinned]


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    """unit: DESIGN §6."""
    pool = Pool(queue_limit=2)
    running = pool.call()
    waiting = [pool.submit()[0] for _ in range(2)]
    pool.state.finished(running, NOW + 2.0)
    pool.submit()
    pool.state.finished(waiting[0], NOW + 5.0)
    pool.submit()
    call, instructions = pool.submit()
    assert failed(instructions) == [(call, EndReason.SATURATED)]
    assert facts_of(instructions) == {"queued": 2, "retry_after": 3.0}


def test_a_full_queue_still_lets_a_call_pass_that_can_start_at_once() -> None:
    """unit: the limit is on standing calls."""
    pool = Pool(size=2, queue_limit=1)
    pool.stateful("s")
    pool.call("s", "write")
    pool.submit("s")
    assert pool.state.queued == 1
    pool.call()


def test_idle_time_does_not_count_as_pace() -> None:
    """unit: retry_after is estimated from ends of calls while others wait."""
    pool = Pool(queue_limit=1)
    for hour in range(3):
        pool.state.finished(pool.call(now=NOW + 3600 * hour), NOW + 3600 * hour + 1)
    pool.call(now=NOW + 9e4)
    pool.submit(now=NOW + 9e4)
    assert facts_of(pool.submit(now=NOW + 9e4)[1])["retry_after"] == 1.0


def test_a_late_reply_of_a_dead_worker_changes_nothing() -> None:
    """unit: C7."""
    pool = Pool()
    call = pool.call()
    pool.state.died(1, NOW)
    assert pool.state.finished(call, NOW) == []


def test_a_nested_call_runs_beyond_concurrency_beside_its_outer_call() -> None:
    """unit: C14."""
    pool = Pool(size=2)
    outer = pool.call("s", "write")
    assert pool.call("s", "write", is_nested=True).generation == outer.generation
    assert pool.state.workers[outer.generation].load == 1


def test_a_nested_call_without_a_session_goes_where_its_outer_call_runs() -> None:
    """unit: C14."""
    pool = Pool(size=2)
    pool.call()
    outer = pool.call()
    nested = pool.new_call(is_nested=True)
    nested.generation = outer.generation
    assert sent(pool.state.submit(nested, NOW)) == [nested]
    assert nested.generation == outer.generation


def test_a_nested_call_that_could_only_wait_fails_at_once() -> None:
    """unit: C14 WouldDeadlock."""
    pool = Pool()
    pool.stateful("s")
    outer = pool.call("s")
    pool.state.abandon(pool.submit()[0], NOW)
    pool.state.close(NOW)
    pool.state.stop_workers(NOW)
    nested = pool.new_call("s", is_nested=True)
    assert failed(pool.state.submit(nested, NOW)) == [(nested, EndReason.DEADLOCK)]
    assert outer.phase is Phase.RUNNING


def test_a_session_with_many_calls_takes_turns_with_the_others() -> None:
    """Unit: whoever comes later waits for the running call of the busy session, not for all that it has queued."""
    pool = Pool()
    busy = [pool.call("busy", "write"), *(pool.submit("busy", "write")[0] for _ in range(5))]
    other, _ = pool.submit("other", "write")
    plain, _ = pool.submit()
    later, _ = pool.submit("busy", "write")
    order = []
    running = busy[0]
    while running is not None:
        order.append(running)
        running = next(iter(sent(pool.state.finished(running, NOW, held=None))), None)
    assert order == [busy[0], other, plain, *busy[1:], later]


def test_a_session_with_state_takes_turns_too() -> None:
    """Unit: its calls may go to one worker only, but they do not keep that worker to themselves."""
    pool = Pool()
    pool.stateful("busy")
    busy = [pool.call("busy", "write"), *(pool.submit("busy", "write")[0] for _ in range(3))]
    plain = [pool.submit()[0] for _ in range(2)]
    order = []
    running = busy[0]
    while running is not None:
        order.append(running)
        running = next(iter(sent(pool.state.finished(running, NOW))), None)
    assert order == [busy[0], *plain, *busy[1:]]


def test_a_call_that_comes_back_has_its_old_turn() -> None:
    """Unit (C8): its worker died before it began; those that came after it still come after it."""
    pool = Pool()
    first = pool.call()
    second, third = pool.submit()[0], pool.submit()[0]
    pool.state.died(1, NOW, unstarted=[first.id])
    assert sent(pool.make_ready()) == [first]
    assert sent(pool.state.finished(first, NOW)) == [second]
    assert sent(pool.state.finished(second, NOW)) == [third]
