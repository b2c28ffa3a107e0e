"""Process: calls that the pool cannot take, refused at once and for a reason that is said."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dspex.errors import PoolClosed, PoolSaturated, PoolUnhealthy, WorkerDied
from dspex.pools.supervisor import Supervisor

from .conftest import Supervise
from .waiting import Caller, Gate, eventually


def test_a_full_queue_is_pool_saturated(supervise: Supervise) -> None:
    """Process (DESIGN §6): queued, limit and retry_after; those that stood there are served."""
    sup = supervise(size=1, concurrency=1, queue_limit=3)
    with Gate(sup) as gate:
        callers = [Caller(sup.call, *gate.command)]
        gate.wait_for(1)
        callers += [Caller(sup.call, *gate.command) for _ in range(3)]
        eventually(lambda: sup.stats()["f"]["queued"] == 3)
        with pytest.raises(PoolSaturated) as caught:
            sup.call("f", "ping")
        assert (caught.value.queued, caught.value.limit) == (3, 3)
        assert caught.value.retry_after > 0
        assert caught.value.retryable == "now"
        gate.open()
        assert [caller.outcome() for caller in callers] == ["f/0"] * 4
    assert sup.call("f", "ping")


BROKEN_SETUP = """
import os, pathlib
from dspex_worker.bridge import Bridge
bridge = Bridge("broken")

@bridge.setup
def setup(settings):
    if pathlib.Path(settings["options"]["flag"]).exists():
        print("the flag is there", flush=True)
        os._exit(5)

@bridge.command()
def die(ctx):
    os._exit(6)
"""


def test_workers_that_cannot_live_make_the_pool_degraded(supervise: Supervise, tmp_path: Path) -> None:
    """Process (DESIGN §6): PoolUnhealthy at once with the last error, and recovery once they can live again."""
    script, flag = tmp_path / "broken_bridge.py", tmp_path / "flag"
    script.write_text(BROKEN_SETUP)
    flag.touch()
    options = {"flag": str(flag)}
    sup = supervise(size=1, bridge=str(script), options=options, restart_budget=(2, 30.0), wait=False)
    eventually(lambda: sup.stats()["f"]["state"] == "degraded")
    began = time.monotonic()
    with pytest.raises(PoolUnhealthy) as caught:
        sup.call("f", "ping")
    assert time.monotonic() - began < 1.0
    assert "exited with 5" in caught.value.last_error
    assert not sup.health()["f"]["is_ready"]
    flag.unlink()
    eventually(lambda: sup.health()["f"]["is_ready"], within=30)
    assert sup.call("f", "ping")["worker"] == "f/0"


def test_a_stopped_supervisor_is_closed(supervise: Supervise) -> None:
    """Process (DESIGN §6): PoolClosed at once, also for sessions and streams."""
    sup = supervise(size=1)
    sup.stop()
    for use in (lambda: sup.call("f", "ping"), lambda: sup.stream("f", "count", {"n": 1}), lambda: sup.start()):
        with pytest.raises(PoolClosed):
            use()


def test_a_supervisor_that_was_not_started_says_so(supervise: Supervise) -> None:
    """Process: PoolClosed with the remedy; no thread and no process exists."""
    sup = supervise(start=False)
    with pytest.raises(PoolClosed, match="start"):
        sup.call("f", "ping")


def test_queued_calls_end_when_the_supervisor_stops(supervise: Supervise) -> None:
    """Process (DESIGN §6): those that were not sent get PoolClosed at once; the running one its grace."""
    sup = supervise(size=1, concurrency=1)
    with Gate(sup) as gate:
        running = Caller(sup.call, *gate.command)
        gate.wait_for(1)
        queued = Caller(sup.call, "f", "ping")
        eventually(lambda: sup.stats()["f"]["queued"] == 1)
        stopping = Caller(sup.stop, grace=10.0)
        with pytest.raises(PoolClosed):
            queued.outcome()
        gate.open()
        assert running.outcome() == "f/0"
        stopping.outcome()


def test_calls_made_before_the_workers_are_ready_are_queued(supervise: Supervise) -> None:
    """Process (T06): start() returns at once, and what is called meanwhile is served."""
    sup = supervise(size=1, wait=False)
    assert sup.call("f", "echo", {"early": True}) == {"early": True}


def test_a_dead_pool_of_two_does_not_hurt_the_other() -> None:
    """Process (T07): one pool cannot start; the other serves."""
    from dspex.config import PoolConfig

    healthy = PoolConfig("good", bridge="faults", size=1)
    broken = PoolConfig("bad", bridge="faults", size=1, start_method="exec", python="/nonexistent/python")
    with Supervisor(pools=[broken, healthy]) as sup:
        assert sup.call("good", "ping")["worker"] == "good/0"


def test_the_restart_budget_ignores_workers_that_worked(supervise: Supervise) -> None:
    """Process (C7b): a worker that answered ten calls is fruitful; its death is no sign of trouble."""
    sup = supervise(size=1, restart_budget=(2, 60.0))
    for n in range(4):
        for _ in range(10):
            sup.call("f", "ping")
        with pytest.raises(WorkerDied):
            sup.call("f", "kill", {"signal": 9})
        assert sup.call("f", "ping")["generation"] == n + 2
