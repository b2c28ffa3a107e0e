"""Process: the fork server can be lost, replaced and renewed without a call noticing (RULES T)."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.supervisors import Supervise
from tests.support.waiting import Caller, Gate, all_ready, descendants, eventually, forkserver_pid, is_alive, pids

VERSIONED = """
from dspex_worker.bridge import Bridge
bridge = Bridge("versioned")

@bridge.command()
def version(ctx):
    return {version}
"""


def test_workers_go_on_without_their_forkserver(supervise: Supervise) -> None:
    """Process (T6): nothing is killed or failed; calls in flight answer."""
    sup = supervise(size=2)
    all_ready(sup, 2)
    with Gate(sup) as gate:
        caller = Caller(sup.call, *gate.command)
        gate.wait_for(1)
        os.kill(forkserver_pid(sup), signal.SIGKILL)
        for n in range(100):
            assert sup.call("f", "echo", {"n": n}) == {"n": n}
        gate.open()
        caller.outcome()
    assert sup.stats()["f"]["counts"]["failed"] == 0


def test_a_lost_forkserver_is_replaced_and_so_are_its_workers(supervise: Supervise) -> None:
    """Process (T6): a new one starts, and recycling moves the pool over to it."""
    sup = supervise(size=2)
    before = set(all_ready(sup, 2))
    old = forkserver_pid(sup)
    os.kill(old, signal.SIGKILL)
    eventually(lambda: len(pids(sup)) == 2 and not before & set(pids(sup)), what="all workers are new")
    new = forkserver_pid(sup)
    assert new != old
    assert set(pids(sup)) <= set(descendants(new))
    assert sup.stats()["f"]["counts"]["failed"] == 0


def test_what_a_worker_started_is_gone_with_it_also_without_a_forkserver(supervise: Supervise) -> None:
    """Process (T3, T6): its planned end, once it has been replaced."""
    sup = supervise(size=1, concurrency=2)
    with Gate(sup) as gate:  # it keeps the worker from being recycled
        caller = Caller(sup.call, *gate.command)
        gate.wait_for(1)
        child = sup.call("f", "spawn", {"seconds": 600})
        os.kill(forkserver_pid(sup), signal.SIGKILL)
        eventually(lambda: sup.stats()["f"]["reaper"] == "lost")
        assert is_alive(child)
        gate.open()
        caller.outcome()
    eventually(lambda: not is_alive(child))


def test_a_worker_without_a_forkserver_still_dies_alone(supervise: Supervise) -> None:
    """Process (T6): its pidfd still fires; its caller hears of it."""
    from dspex.errors import WorkerDied

    sup = supervise(size=1)
    (pid,) = pids(sup)
    with Gate(sup) as gate:
        caller = Caller(sup.call, *gate.command)
        gate.wait_for(1)
        os.kill(forkserver_pid(sup), signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            caller.outcome()
    all_ready(sup, 1)


def test_a_reload_serves_the_new_code(supervise: Supervise, tmp_path: Path) -> None:
    """Process (T7): recycle(reload=True) makes a new fork server; a plain recycle does not."""
    script = tmp_path / "versioned_bridge.py"
    script.write_text(VERSIONED.format(version=1))
    sup = supervise(bridge=str(script), size=2)
    assert sup.call("f", "version") == 1
    script.write_text(VERSIONED.format(version=22))
    sup.pool("f").recycle(timeout=20)
    assert sup.call("f", "version") == 1
    old = forkserver_pid(sup)
    sup.pool("f").recycle(reload=True, timeout=20)
    assert [sup.call("f", "version") for _ in range(8)] == [22] * 8
    assert forkserver_pid(sup) != old
    eventually(lambda: not Path(f"/proc/{old}").exists(), what="the old fork server has gone")


@pytest.mark.parametrize("start_method", ["fork", "exec"])
def test_both_start_methods_give_the_same_results(supervise: Supervise, start_method: str) -> None:
    """Process (T2): one mechanism behind both: calls, streams, sessions, deaths."""
    from dspex.errors import WorkerDied

    sup = supervise(size=2, start_method=start_method)
    assert sup.call("f", "echo", {"a": [1, b"2"]}) == {"a": [1, b"2"]}
    assert list(sup.stream("f", "count", {"n": 100})) == list(range(100))
    with sup.session("f") as session:
        session.call("remember", {"key": "k", "value": 1})
        assert session.call("recall", {"key": "k"})["value"] == 1
    with pytest.raises(WorkerDied) as caught:
        sup.call("f", "exit", {"code": 4})
    assert caught.value.exit_code == 4
    assert sup.call("f", "environment")["OMP_NUM_THREADS"] == "1"
    children = sup.call("f", "spawn", {"seconds": 100})
    sup.stop()
    eventually(lambda: not Path(f"/proc/{children}").exists())


def test_another_interpreter_serves(supervise: Supervise, tmp_path: Path) -> None:
    """Process (DESIGN §5): `python` of another virtualenv, with exec; here the same one under another name."""
    import sys

    link = tmp_path / "python-of-another-place"
    link.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    link.chmod(0o755)
    sup = supervise(size=1, start_method="exec", python=str(link))
    assert sup.call("f", "ping")["worker"] == "f/0"
