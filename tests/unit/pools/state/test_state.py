"""PoolState, one fact for each test: events in, instructions out, a clock of plain floats."""

from __future__ import annotations

from random import Random

import pytest

from dspex.pools.state import invariants
from dspex.pools.state.instructions import Cancel, Emit, EndReason, Fail, Forget, Instruction, Kill, Send, Start, Stop
from dspex.pools.state.machine import PoolState, Rules
from dspex.pools.state.poison import QUARANTINE
from dspex.pools.state.records import CallRecord, Phase, SessionUse, WorkerPhase

NOW = 1000.0


class Pool:
    """A PoolState with its workers ready, and short ways to say what happens."""

    def __init__(self, *, is_ready: bool = True, **rules: object) -> None:
        settings = {"size": 1, "concurrency": 1, "recycle_after_age": None} | rules
        self.state = PoolState(Rules(**settings), random=Random(1))  # type: ignore[arg-type]
        self.ids = 0
        self.started = self.state.start(NOW)
        if is_ready:
            self.make_ready()

    def rules(self, **changed: object) -> Rules:
        """Rules like those that the pool began with, but for these."""
        return Rules(**{"size": 1, "concurrency": 1, "recycle_after_age": None} | changed)  # type: ignore[arg-type]

    def make_ready(self, now: float = NOW) -> list[Instruction]:
        starting = [w.generation for w in self.state.workers.values() if w.phase is WorkerPhase.STARTING]
        return [i for generation in starting for i in self.state.worker_ready(generation, now)]

    def new_call(self, session: str | None = None, use: SessionUse = None, **more: object) -> CallRecord:
        self.ids += 1
        packed = more.pop("packed", bytes([self.ids]))
        return CallRecord(self.ids, "run", session=session, use=use, packed=packed, **more)  # type: ignore[arg-type]

    def submit(
        self, session: str | None = None, use: SessionUse = None, now: float = NOW, **more: object
    ) -> tuple[CallRecord, list[Instruction]]:
        call = self.new_call(session, use, **more)
        return call, self.state.submit(call, now)

    def call(self, session: str | None = None, use: SessionUse = None, now: float = NOW, **more: object) -> CallRecord:
        """Submit, and expect it to be sent."""
        call, instructions = self.submit(session, use, now, **more)
        assert sent(instructions) == [call]
        return call

    def stateful(self, key: str = "s", now: float = NOW) -> CallRecord:
        """Let a session hold state."""
        call = self.call(key, "write", now)
        self.state.finished(call, now, held=True)
        return call


def sent(instructions: list[Instruction]) -> list[CallRecord]:
    return [i.call for i in instructions if isinstance(i, Send)]


def failed(instructions: list[Instruction]) -> list[tuple[CallRecord, EndReason]]:
    return [(i.call, i.why) for i in instructions if isinstance(i, Fail)]


def facts_of(instructions: list[Instruction]) -> dict[str, object]:
    return next(i.facts for i in instructions if isinstance(i, Fail))


def of_kind(instructions: list[Instruction], kind: type) -> list[Instruction]:
    return [i for i in instructions if isinstance(i, kind)]


def events(instructions: list[Instruction]) -> list[str]:
    return [i.event for i in instructions if isinstance(i, Emit)]


# --- placing ---


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


# --- cancelling ---


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
    stuck, neighbour = pool.call(), pool.call()
    pool.state.abandon(stuck, NOW)
    pool.state.pong(1)
    instructions = pool.state.tick(NOW + 1.0)
    assert of_kind(instructions, Start) == [Start(2, 0)]
    assert of_kind(instructions, Kill) == []
    assert neighbour.phase is Phase.RUNNING


def test_a_retiring_worker_gets_no_new_calls_and_is_killed_when_the_others_have_ended() -> None:
    """unit: K3."""
    pool = Pool(concurrency=4)
    stuck, neighbour = pool.call(), pool.call()
    pool.state.abandon(stuck, NOW)
    pool.state.pong(1)
    pool.state.tick(NOW + 1.0)
    assert sent(pool.submit()[1]) == []
    assert of_kind(pool.state.finished(neighbour, NOW + 2.0), Kill) == [Kill(1, "cancel_grace")]


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
    call, neighbour = pool.call(), pool.call()
    instructions = pool.state.finished(call, NOW, retire="interrupted")
    assert events(instructions) == ["worker.retiring"]
    assert of_kind(instructions, Start) == [Start(2, 0)]
    assert of_kind(pool.state.finished(neighbour, NOW), Kill) == [Kill(1, "interrupted")]


# --- deaths ---


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


# --- poison ---


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


def test_strikes_more_than_ten_minutes_apart_do_not_add_up() -> None:
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
    """unit: C7b: two strikes are enough, however many are queued already."""
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


# --- restarts ---


def test_fruitless_deaths_over_the_budget_degrade_the_pool_and_fail_fast() -> None:
    """unit: DESIGN §5 restart_budget."""
    pool = Pool(restart_budget=(2, 30.0))
    pool.state.died(1, NOW)
    pool.make_ready()
    instructions = pool.state.died(2, NOW)
    assert "pool.degraded" in events(instructions)
    call, instructions = pool.submit()
    assert failed(instructions) == [(call, EndReason.UNHEALTHY)]
    assert facts_of(instructions)["retry_in"] == pytest.approx(pool.state.restarts.not_before - NOW)


def test_restarts_back_off_and_the_tick_tries_again() -> None:
    """unit: DESIGN §6: back-off, never a spin."""
    pool = Pool(restart_budget=(2, 30.0))
    pool.state.died(1, NOW)
    pool.make_ready()
    assert of_kind(pool.state.died(2, NOW), Start) == []
    due = pool.state.due
    assert NOW < due <= NOW + 1.0
    assert of_kind(pool.state.tick(due), Start) == [Start(3, 0)]


def test_waits_between_restarts_grow() -> None:
    """unit: DESIGN §6."""
    pool = Pool(restart_budget=(3, 30.0))
    now, waits = NOW, []
    for generation in range(1, 9):
        pool.state.died(generation, now)
        waits.append(pool.state.restarts.wait(now))
        now += waits[-1]
        pool.state.tick(now)
    assert waits[0] == 0.0
    assert waits[-1] > 4 * waits[2] > 0


def test_a_worker_that_answered_ten_calls_may_die_without_burning_the_budget() -> None:
    """unit: DESIGN §5: only fruitless deaths count."""
    pool = Pool(restart_budget=(1, 30.0))
    for _ in range(10):
        pool.state.finished(pool.call(), NOW)
    assert of_kind(pool.state.died(1, NOW), Start) == [Start(2, 0)]
    assert not pool.state.restarts.is_degraded


def test_an_old_worker_at_work_does_not_hide_that_new_ones_cannot_live() -> None:
    """unit: DESIGN §6: back-off, never a spin."""
    pool = Pool(size=2, restart_budget=(50, 30.0))
    for _ in range(20):
        pool.state.finished(pool.call(), NOW)
    for generation in (2, 3):
        pool.make_ready()
        pool.state.died(generation, NOW)
        pool.state.finished(pool.call(), NOW)
    assert pool.state.restarts.wait(NOW) > 0


def test_a_degraded_pool_recovers_when_a_worker_answers_ten_calls() -> None:
    """unit: DESIGN §5."""
    pool = Pool(restart_budget=(1, 30.0))
    pool.state.died(1, NOW)
    pool.state.tick(NOW + 60)
    pool.make_ready(NOW + 60)
    for _ in range(10):
        pool.state.finished(pool.call(), NOW + 60)
    assert not pool.state.restarts.is_degraded


def test_a_degraded_pool_recovers_when_all_its_workers_have_lived_for_the_period() -> None:
    """unit: DESIGN §5."""
    pool = Pool(restart_budget=(1, 30.0))
    pool.state.died(1, NOW)
    pool.state.tick(NOW + 1)
    pool.make_ready(NOW + 1)
    pool.state.tick(pool.state.due)
    assert pool.state.restarts.is_degraded is False


def test_a_boot_failure_with_nobody_left_fails_the_queue() -> None:
    """unit: DESIGN §6 WorkerBootError."""
    pool = Pool(is_ready=False)
    call, _ = pool.submit()
    instructions = pool.state.died(1, NOW, cause="boot")
    assert failed(instructions) == [(call, EndReason.BOOT)]


def test_a_boot_failure_leaves_the_queue_to_workers_that_still_start() -> None:
    """unit: DESIGN §6."""
    pool = Pool(size=2, is_ready=False)
    call, _ = pool.submit()
    assert failed(pool.state.died(1, NOW, cause="boot")) == []
    assert sent(pool.make_ready()) == [call]


def test_a_worker_that_does_not_start_in_time_is_killed_and_counts_as_a_boot_failure() -> None:
    """unit: DESIGN §5 startup_timeout."""
    pool = Pool(is_ready=False)
    call, _ = pool.submit()
    assert of_kind(pool.state.tick(NOW + 60.0), Kill) == [Kill(1, "startup_timeout")]
    assert failed(pool.state.died(1, NOW + 60.0, by_itself=False)) == [(call, EndReason.BOOT)]
    assert pool.state.restarts.recent == 1


# --- sessions ---


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


def test_closing_a_session_forgets_its_state() -> None:
    """unit: S7."""
    pool = Pool()
    pool.stateful("s")
    assert pool.state.close_session("s", NOW) == [Forget(1, "s")]
    assert pool.state.sessions == {}


def test_a_call_after_close_never_sees_the_former_state() -> None:
    """unit: S7: the old life ends before the new one begins."""
    pool = Pool(concurrency=4)
    running = pool.call("s", "write")
    pool.state.close_session("s", NOW)
    after, instructions = pool.submit("s")
    assert instructions == []
    assert pool.state.finished(running, NOW, held=True) == [Forget(1, "s"), Send(after, 1, None)]


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
    assert Forget(1, "s") in pool.state.tick(NOW + 611.0)
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


# --- nested calls ---


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


# --- recycling and resizing ---


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


# --- the end ---


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


# -- turns --


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


# -- other rules --


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
