"""Chaos: thousands of calls while workers are killed: none lost, none answered wrongly, none run twice."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.support.chaos.plan import Plan
from tests.support.chaos.run import ChaosRun

MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def leaves_nothing(no_leaks: None) -> None:
    """The runs give back their descriptors, threads and processes."""


def _run(tmp_path: Path, **settings: float) -> ChaosRun:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")  # shown if it fails
    plan = Plan(seed, calls=int(settings.pop("calls")), kill_every=int(settings.pop("kill_every", 0)))
    run = ChaosRun(plan, tmp_path, **settings)  # type: ignore[arg-type]
    run.execute()
    run.ledger.check(run.effects)
    return run


def test_twenty_thousand_calls_with_a_kill_in_every_thousand(tmp_path: Path) -> None:
    """Chaos (scorecard 3): 64 in flight; only calls that ran in a killed worker fail, with WorkerDied."""
    run = _run(tmp_path, calls=20_000, kill_every=1000)
    assert run.kills == 20
    assert run.ledger.counts["lost to a death"] <= 20 * 8
    assert run.ledger.counts["answered"] > 17_000
    assert run.end.descriptors == run.warm.descriptors
    assert run.end.threads == run.warm.threads
    assert run.end.children == run.warm.children
    assert run.end.rss - run.warm.rss < 8 * MIB


def test_kills_by_the_clock(tmp_path: Path) -> None:
    """Chaos: a worker is killed every tenth of a second, whatever runs there, and calls go on until three were."""
    run = _run(tmp_path, calls=3_000, kill_every_s=0.1, least_kills=3)
    assert run.kills >= 3
    assert run.end.descriptors == run.warm.descriptors


def test_one_caller_at_a_time(tmp_path: Path) -> None:
    """Chaos: without concurrency each kill costs one call at most."""
    run = _run(tmp_path, calls=2_000, kill_every=100, in_flight=1, size=2)
    assert run.ledger.counts["lost to a death"] <= run.kills
