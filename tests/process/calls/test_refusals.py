"""Process: calls that the pool cannot take, refused at once and for a reason that is said."""

from __future__ import annotations

import asyncio
import math
import time
from pathlib import Path
from typing import Any

import pytest

from dspex.errors import CallTimeout, InvalidInput, PoolClosed, PoolSaturated, PoolUnhealthy, SessionLimit, WorkerDied
from dspex.pools.supervisor import Supervisor
from tests.support.supervisors import Supervise
from tests.support.waiting import SOON, Caller, Gate, eventually, lines


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
    assert time.monotonic() - began < SOON
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
    """Process (C7b): a worker that answered ten calls has worked; its death is no sign of trouble."""
    sup = supervise(size=1, restart_budget=(2, 60.0))
    for n in range(4):
        for _ in range(10):
            sup.call("f", "ping")
        with pytest.raises(WorkerDied):
            sup.call("f", "kill", {"signal": 9})
        assert sup.call("f", "ping")["generation"] == n + 2


@pytest.mark.parametrize("arguments", [[1, 2], 5, "text"])
def test_arguments_that_are_no_dict_are_refused_before_a_worker_sees_them(supervise: Supervise, arguments: Any) -> None:
    """Process: at once, also before the pool knows its commands; the worker and its other calls live on."""
    sup = supervise(size=1, wait=False)
    with pytest.raises(InvalidInput, match="must be a dict"):
        sup.call("f", "echo", arguments)
    sup.wait_ready()
    before = sup.call("f", "ping")
    with pytest.raises(InvalidInput, match="must be a dict"):
        sup.stream("f", "count", arguments)
    assert sup.call("f", "ping")["pid"] == before["pid"]


def test_a_command_that_is_no_text_is_refused(supervise: Supervise) -> None:
    """Process: also before the pool knows its commands; the supervisor lives on."""
    sup = supervise(size=1, wait=False)
    with pytest.raises(InvalidInput, match="int"):
        sup.call("f", 5)  # type: ignore[arg-type]
    assert sup.call("f", "ping")


def test_a_timeout_that_is_no_number_is_refused(supervise: Supervise) -> None:
    """Process: NaN would never end for a coroutine, and at once for a thread."""
    sup = supervise(size=1)
    with pytest.raises(InvalidInput, match="nan"):
        sup.call("f", "ping", timeout=math.nan)
    with pytest.raises(InvalidInput, match="nan"):
        asyncio.run(sup.acall("f", "ping", timeout=math.nan))


def test_a_session_has_a_key_of_its_own(supervise: Supervise) -> None:
    """Process (S1): no id is taken for another's, and no client's name runs into an id."""
    sup = supervise(size=1)
    with pytest.raises(InvalidInput, match="text"):
        sup.call("f", "echo", session=5)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="'a/b'"):
        sup.session("f", "c", client="a/b")


@pytest.mark.parametrize("size", [0, -1, 2.5, math.nan, True, "3", None])
def test_a_size_that_is_none_is_refused_and_nothing_changes(supervise: Supervise, size: Any) -> None:
    """Process: ValueError, and the pool serves on."""
    sup = supervise(size=1)
    with pytest.raises(ValueError, match="whole number"):
        sup.pool("f").resize(size)
    assert sup.stats()["f"]["size"] == 1
    assert sup.call("f", "ping", timeout=10)


def test_a_refused_session_disturbs_no_call_that_a_draining_pool_has_taken(supervise: Supervise) -> None:
    """Process (S7): SessionLimit for who asks; the queued call is answered, and new ones hear that it drains."""
    sup = supervise(size=1, concurrency=1, session_limit=1)
    sup.session("f", "a").call("remember", {"key": "k", "value": 1})
    with Gate(sup) as gate:
        running = Caller(sup.call, *gate.command)
        gate.wait_for(1)
        queued = Caller(sup.call, "f", "ping")
        eventually(lambda: sup.stats()["f"]["queued"] == 1)
        draining = Caller(sup.pool("f").drain)
        eventually(lambda: sup.stats()["f"]["state"] == "closed")
        with pytest.raises(SessionLimit):
            sup.session("f", "b")
        gate.open()
        assert queued.outcome()["worker"] == running.outcome() == "f/0"
        draining.outcome()
    with pytest.raises(PoolClosed, match="drain"):
        sup.call("f", "ping")


def test_a_start_that_fails_may_be_tried_again(supervise: Supervise, monkeypatch: pytest.MonkeyPatch) -> None:
    """Process: without descriptors it raises, is not started, and starts once there are some."""
    sup = supervise(start=False, size=1)
    with monkeypatch.context() as patched:
        patched.setattr("os.eventfd", _none_left)
        with pytest.raises(OSError, match="none left"):
            sup.start()
    assert not sup.is_running
    with pytest.raises(PoolClosed, match="not started"):
        sup.call("f", "ping")
    assert sup.start().call("f", "ping")


def test_a_call_that_comes_too_late_is_never_sent(supervise: Supervise, tmp_path: Path) -> None:
    """Process (DESIGN §6): with no time left it is CallTimeout, "queued", and its command does not begin."""
    sup = supervise(size=1)
    effects = tmp_path / "effects"
    for timeout in (0.0, -1.0, -math.inf) * 30:
        with pytest.raises(CallTimeout) as caught:
            sup.call("f", "effect", {"path": str(effects), "token": "x"}, timeout=timeout)
        assert caught.value.phase == "queued"
    with pytest.raises(CallTimeout):
        asyncio.run(sup.acall("f", "effect", {"path": str(effects), "token": "x"}, timeout=0.0))
    with pytest.raises(CallTimeout):
        list(sup.stream("f", "count", {"n": 3}, timeout=0.0))
    sup.call("f", "ping")
    assert lines(effects) == []
    assert sup.stats()["f"]["counts"]["expired"] == 92


def test_a_call_that_outlives_the_stop_grace_hears_why_it_ended(supervise: Supervise) -> None:
    """Process (DESIGN §6): WorkerDied with cause "stopped", and no promise of a new worker."""
    sup = supervise(size=1)
    with Gate(sup) as gate:
        running = Caller(sup.call, *gate.command)
        gate.wait_for(1)
        sup.stop(grace=0.0)
        with pytest.raises(WorkerDied, match="supervisor was stopped") as caught:
            running.outcome()
    assert caught.value.cause == "stopped"


def _none_left(*_: object) -> int:
    raise OSError("none left")
