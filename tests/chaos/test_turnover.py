"""Chaos: planned and unplanned turnover under 64 callers: no call fails but by the death of its own worker."""

from __future__ import annotations

import os
import signal
import threading
import time
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import median

import pytest

from dspex.config import PoolConfig
from dspex.errors import PoolClosed, PoolUnhealthy, WorkerDied
from dspex.events import Name
from dspex.pools.state.restarts import FIRST_WAIT
from dspex.pools.supervisor import Supervisor
from tests.support.chaos.callers import Company, Killer, unharmed
from tests.support.supervisors import Supervise
from tests.support.waiting import SOON, Caller, Gate, all_ready, eventually, forkserver_pid, pids

SIZE = 3


class Watching(threading.Thread):
    """Looks at a pool until it is left: the most that drained at once, and the fewest that were ready."""

    def __init__(self, sup: Supervisor) -> None:
        super().__init__(daemon=True)
        self.most_draining = 0
        self.fewest_ready = 1_000_000
        self._sup = sup
        self._is_over = threading.Event()

    def __enter__(self) -> Watching:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self.join()

    def run(self) -> None:
        while not self._is_over.wait(0.002):
            phases = [row["phase"] for row in self._sup.stats()["f"]["workers"]]
            self.most_draining = max(self.most_draining, phases.count("draining"))
            self.fewest_ready = min(self.fewest_ready, phases.count("ready"))


def test_all_due_at_once_leave_one_at_a_time(supervise: Supervise, seeded: Random) -> None:
    """Chaos (scorecard 26): every worker's age is over; one drains at a time, and capacity is never below the size."""
    sup = supervise(size=SIZE, recycle_after_age=0.5)
    all_ready(sup, SIZE)
    with Company(sup, seeded) as company, Watching(sup) as watching:
        eventually(lambda: min(row["generation"] for row in sup.stats()["f"]["workers"]) > 3 * SIZE, within=60)
    assert company.errors == []
    assert watching.most_draining <= 1
    assert watching.fewest_ready >= SIZE


def test_a_rolling_restart_with_everything_at_once_fails_no_call(supervise: Supervise, seeded: Random) -> None:
    """Chaos (S8): recycle, reload, growing and shrinking in a random order, from four threads, under load."""
    sup = supervise(size=SIZE)
    pool = sup.pool("f")
    deeds = [
        lambda: pool.recycle(timeout=60),
        lambda: pool.recycle(reload=True, timeout=60),
        lambda: pool.resize(seeded.randrange(1, 6)),
        lambda: pool.resize(SIZE),
    ]
    with Company(sup, seeded) as company:
        for _ in range(3):
            seeded.shuffle(deeds)
            for caller in [Caller(deed) for deed in deeds]:
                caller.outcome(90)
        pool.resize(SIZE)
        company.goes_on()
    all_ready(sup, SIZE)
    assert company.errors == []


def test_a_drain_under_load_answers_what_was_taken(supervise: Supervise, seeded: Random) -> None:
    """Chaos (DESIGN §4): calls that were taken are answered; later ones hear PoolClosed, and nothing else."""
    sup = supervise(size=SIZE)
    with Company(sup, seeded) as company:
        sup.pool("f").drain(timeout=30)
        stats = sup.stats()["f"]
        assert (stats["queued"], stats["in_flight"]) == (0, 0)
        eventually(company.heard, what="callers hear that it takes no more")
    assert set(company.heard()) == {"PoolClosed"}
    assert stats["counts"]["failed"] == 0 or all(isinstance(error, PoolClosed) for error in company.errors)


def test_a_forkserver_killed_under_load_costs_no_call(supervise: Supervise, seeded: Random) -> None:
    """Chaos (T6): three times; its workers serve on until those of the new one have replaced them."""
    sup = supervise(size=SIZE)
    with unharmed(sup, SIZE), Company(sup, seeded) as company:
        for _ in range(3):
            before = set(all_ready(sup, SIZE))
            os.kill(forkserver_pid(sup), signal.SIGKILL)
            eventually(lambda before=before: not before & set(all_ready(sup, SIZE)), within=30)
            company.goes_on(200)
    assert company.errors == []


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.1])
def test_a_forkserver_killed_during_recycling_costs_no_call(supervise: Supervise, seeded: Random, delay: float) -> None:
    """Chaos (T6): the spare that was asked for may never come; another does, and the recycling ends."""
    sup = supervise(size=SIZE)
    with unharmed(sup, SIZE), Company(sup, seeded) as company:
        before = set(all_ready(sup, SIZE))
        recycling = Caller(sup.pool("f").recycle, timeout=60)
        threading.Event().wait(delay + seeded.uniform(0, 0.01))
        os.kill(forkserver_pid(sup), signal.SIGKILL)
        recycling.outcome(60)
        assert not before & set(pids(sup))
        company.goes_on(200)
    assert company.errors == []


def test_forkservers_killed_one_after_another_leave_no_descriptor(supervise: Supervise) -> None:
    """Chaos (T6): a worker that its session keeps outlives four fork servers, and is watched once, not four times."""
    sup = supervise(size=1)
    warmed: list[object] = []
    sup.on_event(lambda event: warmed.append(event) if event.name is Name.FORKSERVER_WARMED else None)
    with unharmed(sup, 1):
        with sup.session("f") as session:
            home = session.call("remember", {"key": "k", "value": 1})["pid"]
            for _ in range(4):
                seen = len(warmed)
                os.kill(forkserver_pid(sup), signal.SIGKILL)
                eventually(lambda seen=seen: len(warmed) > seen, what="the next fork server is warm")
            assert session.call("recall", {"key": "k"})["pid"] == home
        eventually(lambda: home not in pids(sup))


SILENT_FORKSERVER = """
import os, pathlib, sys, time
from dspex_worker.bridge import Bridge
bridge = Bridge("silent")
flag, forkserver = pathlib.Path({flag!r}), sys.modules["__main__"].ForkServer
send = forkserver._send

def send_late(self, kind, *rest):
    while kind == "spawned" and flag.exists():
        time.sleep(0.01)
    send(self, kind, *rest)

forkserver._send = send_late

@bridge.command()
def ask(ctx, name, arguments):
    return ctx.call_parent(name, arguments)
"""


def test_a_forkserver_killed_before_it_tells_of_a_worker_costs_no_call(supervise: Supervise, tmp_path: Path) -> None:
    """Chaos (T6): the worker serves already when its fork server is killed: known by its HELLO, it serves on."""
    flag = tmp_path / "silent"
    script = tmp_path / "silent_bridge.py"
    script.write_text(SILENT_FORKSERVER.format(flag=str(flag)))
    sup = supervise(size=1, bridge=str(script))
    flag.touch()
    recycling = Caller(sup.pool("f").recycle, timeout=60)
    eventually(lambda: [row["generation"] for row in sup.stats()["f"]["workers"] if row["phase"] == "ready"] == [2])
    with Gate(sup) as gate:
        running = Caller(sup.call, *gate.command)
        gate.wait_for(1)
        os.kill(forkserver_pid(sup), signal.SIGKILL)
        flag.unlink()
        eventually(lambda: any(row["pid"] for row in sup.stats()["f"]["workers"] if row["generation"] == 2))
        gate.open()
        assert running.outcome() == "f/0"
    recycling.outcome(60)
    all_ready(sup, 1)
    assert sup.stats()["f"]["counts"]["failed"] == 0


SLOW_SETUP = """
import time
from dspex_worker.bridge import Bridge
bridge = Bridge("slow")

@bridge.setup
def setup(settings):
    time.sleep(0.3)
"""


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.3, 0.5])
def test_a_forkserver_killed_during_boot_delays_it(supervise: Supervise, tmp_path: Path, delay: float) -> None:
    """Chaos (T6, scorecard 23): while it imports, or while its first workers set themselves up; the pool comes up."""
    script = tmp_path / "slow_bridge.py"
    script.write_text(SLOW_SETUP)
    sup = supervise(size=2, bridge=str(script), wait=False)
    eventually(lambda: sup.stats()["f"]["reaper"].startswith("fork server"))
    early = Caller(sup.call, "f", "echo", {"n": 1}, timeout=30)
    threading.Event().wait(delay)
    reaper = sup.stats()["f"]["reaper"]
    if reaper.startswith("fork server"):
        os.kill(int(reaper.split()[-1]), signal.SIGKILL)
    try:
        early.outcome(30)
    except Exception as error:  # refused with the reason, where nobody could have started
        assert type(error).__name__ == "WorkerBootError", repr(error)
    all_ready(sup, 2)
    assert sup.call("f", "echo", {"n": 2}) == {"n": 2}


DYING = """
import os
from dspex_worker.bridge import Bridge
bridge = Bridge("dying")

@bridge.setup
def setup(settings):
    os._exit(9)
"""


def test_a_pool_in_a_crash_loop_does_not_slow_the_other(tmp_path: Path, seeded: Random) -> None:
    """Chaos (T07, T42, T47): the latencies of a serving pool beside those while its neighbor's workers keep dying."""
    script = tmp_path / "dying_bridge.py"
    script.write_text(DYING)
    serving = PoolConfig("good", bridge="faults", size=2, stop_grace=0.5)
    dying = PoolConfig("bad", bridge=str(script), size=4, restart_budget=(3, 30.0), stop_grace=0.5)
    with Supervisor(pools=[serving]) as quiet:
        alone = _latencies(quiet)
    with Supervisor(pools=[dying, serving]) as sup:
        eventually(lambda: sup.stats()["bad"]["state"] == "degraded", what="the crash loop")
        with pytest.raises(PoolUnhealthy):
            sup.call("bad", "ping")
        looping = _latencies(sup)
        assert sup.stats()["good"]["counts"]["failed"] == 0
    killed = PoolConfig("bad", bridge="faults", size=2, restart_budget=(1000, 1.0), stop_grace=0.5)
    with Supervisor(pools=[killed, serving]) as sup, Killer(sup, seeded, every=0.05, pool="bad") as killer:
        dropping = _latencies(sup)
        assert sup.stats()["good"]["counts"]["failed"] == 0
    assert killer.kills >= 3  # those that die before they did any work come back ever later
    print(f"{killer.kills} workers killed in 1.5 s")
    for name, found in (("alone", alone), ("beside a crash loop", looping), ("beside kills", dropping)):
        print(f"{name}: p50 {_ms(found, 0.5)}, p90 {_ms(found, 0.9)}, p99 {_ms(found, 0.99)}, most {_ms(found, 1)}")
        assert median(found) < 4 * median(alone) + 0.002
        assert found[int(len(found) * 0.99)] < 10 * alone[int(len(alone) * 0.99)] + 0.05


def _latencies(sup: Supervisor) -> list[float]:
    """A second of calls of the pool "good", one at a time, sorted."""
    sup.pool("good").lifecycle.wait_ready(30)
    for n in range(200):
        sup.call("good", "echo", {"n": n})
    found = []
    until = time.monotonic() + 1.5
    while (began := time.monotonic()) < until:
        sup.call("good", "echo", {"n": 1})
        found.append(time.monotonic() - began)
    return sorted(found)


def _ms(found: list[float], share: float) -> str:
    return f"{found[min(len(found) - 1, int(len(found) * share))] * 1000:.2f} ms"


def test_workers_that_live_shortly_are_replaced_with_back_off(supervise: Supervise, seeded: Random) -> None:
    """Chaos (scorecard 25): early deaths in a row: starts become rarer, callers fail fast, then it recovers."""
    sup = supervise(size=1, restart_budget=(3, 20.0))
    starts = []
    for _ in range(6):
        (pid,) = all_ready(sup, 1)
        starts.append(time.monotonic())
        os.kill(pid, signal.SIGKILL)
        eventually(lambda pid=pid: pid not in pids(sup))
        if sup.stats()["f"]["state"] == "degraded":
            began = time.monotonic()
            with pytest.raises((PoolUnhealthy, WorkerDied)):
                sup.call("f", "echo", {"n": 1}, timeout=60)
            assert time.monotonic() - began < SOON
    gaps = [b - a for a, b in pairwise(starts)]
    assert all(gap >= FIRST_WAIT * 2 ** (deaths + 1) / 2 for deaths, gap in enumerate(gaps) if deaths), gaps
    all_ready(sup, 1)
    for n in range(10):
        assert sup.call("f", "echo", {"n": n}) == {"n": n}
    assert sup.stats()["f"]["state"] == "ready"
