"""Process: new code and new settings for a pool that serves: no call fails, and what cannot work changes nothing."""

from __future__ import annotations

import os
import select
import signal
import threading
from pathlib import Path

import pytest

from dspex.config import PoolConfig
from dspex.errors import CallTimeout, PoolClosed, PoolSaturated, SessionLost, UnknownName, WorkerBootError
from dspex.pools.supervisor import Supervisor
from tests.support.supervisors import Supervise
from tests.support.waiting import Caller, Gate, all_ready, eventually, forkserver_pid, pids

VERSIONED = """
import time
from dspex_worker.bridge import Bridge
time.sleep({slow})
VERSION = {version}
bridge = Bridge("versioned")

@bridge.command()
def version(ctx):
    return VERSION
"""


def settings(sup: Supervisor, **changed: object) -> PoolConfig:
    """The pool's settings, but for these."""
    now = sup.pool("f").config
    kept = {name: getattr(now, name) for name in ("bridge", "size", "stop_grace", "startup_timeout", "concurrency")}
    return PoolConfig("f", **{**kept, **changed})


def write(script: Path, version: int, slow: float = 0.0) -> None:
    script.write_text(VERSIONED.format(version=version, slow=slow))


def new_children(*known: int) -> set[int]:
    """The children of this process beside these: a fork server that is being warmed."""
    tasks = Path("/proc/self/task").iterdir()
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()} - set(known)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "versioned_bridge.py"
    write(path, 1)
    return path


def test_broken_code_changes_nothing(supervise: Supervise, script: Path) -> None:
    """Process: the fork server that serves stays, so that even a worker that dies meanwhile has a successor."""
    sup = supervise(bridge=str(script), size=2)
    before, forkserver = all_ready(sup, 2), forkserver_pid(sup)
    script.write_text("raise RuntimeError('broken on purpose')")
    with pytest.raises(WorkerBootError, match="broken on purpose"):
        sup.pool("f").recycle(reload=True, timeout=20)
    assert pids(sup) == before and forkserver_pid(sup) == forkserver
    os.kill(before[0], signal.SIGKILL)
    eventually(lambda: len(set(pids(sup)) - set(before)) == 1 and len(pids(sup)) == 2, what="it is replaced")
    assert [sup.call("f", "version") for _ in range(8)] == [1] * 8
    write(script, 2)
    sup.pool("f").recycle(reload=True, timeout=20)
    assert [sup.call("f", "version") for _ in range(8)] == [2] * 8


def test_code_that_hangs_at_import_changes_nothing(supervise: Supervise, script: Path) -> None:
    """Process: startup_timeout bounds the import of new code too."""
    sup = supervise(bridge=str(script), size=1, startup_timeout=2.0)
    before = all_ready(sup, 1)
    write(script, 2, slow=300)
    with pytest.raises(WorkerBootError, match="startup_timeout"):
        sup.pool("f").recycle(reload=True, timeout=20)
    assert pids(sup) == before and sup.call("f", "version") == 1


def test_a_later_reload_takes_the_place_of_one_that_hangs(supervise: Supervise, script: Path) -> None:
    """Process: both callers are told of the code that the pool got."""
    sup = supervise(bridge=str(script), size=1)
    write(script, 2, slow=300)
    first = Caller(sup.pool("f").recycle, reload=True)
    (worker,) = pids(sup)
    eventually(lambda: new_children(worker, forkserver_pid(sup)), what="it imports")
    write(script, 3)
    second = Caller(sup.pool("f").recycle, reload=True)
    assert first.outcome() is None and second.outcome() is None
    assert sup.call("f", "version") == 3


def test_a_resize_just_before_a_reload_gets_the_new_code_too(supervise: Supervise, script: Path) -> None:
    """Process: workers on their way when the new fork server takes over are replaced like the others."""
    sup = supervise(bridge=str(script), size=1)
    for version in range(2, 6):
        write(script, version)
        sup.pool("f").resize(3)
        sup.pool("f").recycle(reload=True, timeout=20)
        all_ready(sup, 3)
        assert {sup.call("f", "version") for _ in range(12)} == {version}
        sup.pool("f").resize(1)


def test_a_reload_before_the_pool_is_ready(supervise: Supervise, script: Path) -> None:
    """Process: it need not wait for the first fork server."""
    write(script, 1, slow=300)
    sup = supervise(bridge=str(script), size=2, wait=False)
    write(script, 2)
    sup.pool("f").recycle(reload=True, timeout=20)
    sup.wait_ready()
    assert {sup.call("f", "version") for _ in range(8)} == {2}


AWAITING = """
import time
from pathlib import Path
from dspex_worker.bridge import Bridge
Path({folder!r}, "began-{version}").touch()
while not Path({folder!r}, "go-{version}").exists():
    time.sleep(0.01)
bridge = Bridge("awaiting")

@bridge.command()
def version(ctx):
    return {version}
"""


def test_a_replaced_forkservers_report_may_come_late(supervise: Supervise, tmp_path: Path) -> None:
    """Process: it was warm in the moment when another took its place; what it says then is of no use, nor of harm."""
    script = tmp_path / "awaiting_bridge.py"
    script.write_text(AWAITING.format(folder=str(tmp_path), version=1))
    sup = supervise(bridge=str(script), size=1, wait=False)
    forkserver = sup.pool("f")._pool_workers.forkserver
    eventually((tmp_path / "began-1").exists)
    script.write_text(AWAITING.format(folder=str(tmp_path), version=2))
    reload = Caller(sup.pool("f").recycle, reload=True)
    eventually((tmp_path / "began-2").exists)
    first, second = forkserver.current, forkserver._candidate
    assert first is not None and second is not None
    is_held, go_on = threading.Event(), threading.Event()
    sup._engine.call_soon(lambda: (is_held.set(), go_on.wait(30)))
    assert is_held.wait(10)
    for number, forkserver in ((2, second), (1, first)):  # the engine hears them in this order
        (tmp_path / f"go-{number}").touch()
        assert select.select([forkserver._control], [], [], 20)[0]
    go_on.set()
    assert reload.outcome() is None
    assert sup.call("f", "version") == 2


def test_stopping_ends_the_wait_for_new_code(supervise: Supervise, script: Path) -> None:
    """Process: nobody waits for a pool that is gone."""
    sup = supervise(bridge=str(script), size=1)
    write(script, 2, slow=300)
    caller = Caller(sup.pool("f").recycle, reload=True)
    eventually(lambda: new_children(*pids(sup), forkserver_pid(sup)), what="it imports")
    sup.stop(grace=0.0)
    with pytest.raises(WorkerBootError, match="stopped"):
        caller.outcome()


def test_limits_count_at_once_and_the_workers_stay(supervise: Supervise) -> None:
    """Process: a setting that workers are not made from needs no new ones; calls that wait keep their place."""
    sup = supervise(size=1, concurrency=1)
    before = all_ready(sup, 1)
    with Gate(sup) as gate:
        running = Caller(sup.call, *gate.command)
        gate.wait_for(1)
        waiting = [Caller(sup.call, "f", "echo", {"n": n}) for n in range(3)]
        eventually(lambda: sup.stats()["f"]["queued"] == 3)
        sup.pool("f").reconfigure(settings(sup, queue_limit=2, call_timeout=0.2))
        with pytest.raises(PoolSaturated):
            sup.call("f", "echo", timeout=5)
        gate.open()
        assert [caller.outcome() for caller in (running, *waiting)][1:] == [{"n": n} for n in range(3)]
    assert pids(sup) == before
    with pytest.raises(CallTimeout, match=r"0\.2"):
        sup.call("f", "sleep", {"seconds": 30})


def test_more_concurrency_comes_with_new_workers_and_fails_no_call(supervise: Supervise) -> None:
    """Process: an old worker never gets more calls at once than it was made for (C8)."""
    sup = supervise(size=1, concurrency=1, call_timeout=60)
    before = all_ready(sup, 1)
    callers = [Caller(sup.call, "f", "sleep", {"seconds": 0.02}) for _ in range(40)]
    sup.pool("f").reconfigure(settings(sup, concurrency=4), timeout=30)
    for caller in callers:
        caller.outcome()
    assert not set(before) & set(pids(sup))
    with Gate(sup) as gate:
        together = [Caller(sup.call, *gate.command) for _ in range(4)]
        gate.wait_for(4)
        gate.open()
        for caller in together:
            caller.outcome()


def test_another_bridge(supervise: Supervise, script: Path, tmp_path: Path) -> None:
    """Process: what workers are made from changes with them, and the pool's settings say so."""
    sup = supervise(bridge=str(script), size=2)
    other = tmp_path / "other_bridge.py"
    write(other, 7)
    sup.pool("f").reconfigure(settings(sup, bridge=str(other), size=1), timeout=20)
    assert sup.call("f", "version") == 7
    assert sup.pool("f").config.bridge == str(other) and sup.stats()["f"]["size"] == 1
    with pytest.raises(WorkerBootError):
        script.write_text("raise SystemExit(3)")
        sup.pool("f").reconfigure(settings(sup, bridge=str(script)), timeout=20)
    assert sup.pool("f").config.bridge == str(other) and sup.call("f", "version") == 7


def test_the_settings_of_another_pool_are_refused(supervise: Supervise) -> None:
    """Process: by name, before anything changes."""
    sup = supervise(size=1)
    with pytest.raises(ValueError, match="'f' cannot take the settings of pool 'g'"):
        sup.pool("f").reconfigure(PoolConfig("g", bridge="faults"))


def test_new_code_brings_its_own_commands(supervise: Supervise, script: Path) -> None:
    """Process: after a reload those that are new can be called, and those that are gone are named no more."""
    sup = supervise(bridge=str(script), size=2)
    assert sup.call("f", "version") == 1
    script.write_text(script.read_text().replace("def version", "def edition"))
    sup.pool("f").recycle(reload=True, timeout=20)
    assert sup.call("f", "edition") == 1
    with pytest.raises(UnknownName, match="edition"):
        sup.call("f", "version")


def test_workers_of_a_supervisor_that_does_not_run_cannot_be_replaced(supervise: Supervise, script: Path) -> None:
    """Process: PoolClosed at once, before the start and after the stop, where nobody would ever do it."""
    sup = supervise(start=False, size=1)
    other = settings(sup, bridge=str(script))
    pool = sup.pool("f")
    for then in (lambda: sup.start().stop(), sup.stop):
        with pytest.raises(PoolClosed):
            pool.recycle(reload=True, timeout=5)
        with pytest.raises(PoolClosed):
            pool.reconfigure(other, timeout=5)
        then()


def test_a_shorter_session_ttl_counts_for_the_sessions_that_are_there(supervise: Supervise) -> None:
    """Process (S7): an hour before, a moment now: the session expires, however late the pool wanted to look."""
    sup = supervise(size=1)
    session = sup.session("f", "s")
    session.call("remember", {"key": "k", "value": 1})
    sup.pool("f").reconfigure(settings(sup, session_ttl=0.2))
    eventually(lambda: sup.stats()["f"]["workers"][0]["sessions"] == 0, what="it expired")
    with pytest.raises(SessionLost, match="expired"):
        session.call("recall", {"key": "k"})
