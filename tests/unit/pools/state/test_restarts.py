"""Unit: how often and how soon workers are started again, and when a pool is degraded."""

from __future__ import annotations

import pytest

from dspex.pools.state.instructions import EndReason, Kill, Start
from tests.support.pools.pool_state import NOW, Pool, events, facts_of, failed, of_kind, sent


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
    """unit: only early deaths count."""
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
