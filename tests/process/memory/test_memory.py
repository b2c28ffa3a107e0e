"""Process: the memory cap holds for a worker and its children, and says what it saw."""

from __future__ import annotations

import os
import signal

import pytest

from dspex.errors import CallTimeout, WorkerMemoryExceeded
from tests.support.supervisors import Supervise
from tests.support.waiting import Caller, Gate, all_ready, eventually, forkserver_pid, is_alive, pids

MIB = 1024 * 1024
CAP = 96 * MIB


def test_an_allocation_over_the_cap_ends_the_worker(supervise: Supervise) -> None:
    """Process (DESIGN §6): WorkerMemoryExceeded with cap and what was seen; then a new worker serves."""
    sup = supervise(size=1, memory_cap=CAP)
    with pytest.raises(WorkerMemoryExceeded) as caught:
        sup.call("f", "allocate", {"bytes": 2 * CAP, "seconds": 30.0})
    error = caught.value
    assert error.cap == CAP
    assert error.seen > CAP
    assert error.peak >= error.seen
    assert error.in_flight == 1
    assert isinstance(error, MemoryError)
    assert sup.call("f", "ping")["generation"] == 2


def test_all_calls_of_that_worker_hear_it(supervise: Supervise) -> None:
    """Process (DESIGN §6): neighbors in the same worker get WorkerMemoryExceeded too."""
    sup = supervise(size=1, memory_cap=CAP)
    with Gate(sup) as gate:
        neighbor = Caller(sup.call, *gate.command)
        gate.wait_for(1)
        with pytest.raises(WorkerMemoryExceeded) as caught:
            sup.call("f", "allocate", {"bytes": 2 * CAP, "seconds": 30.0})
        assert caught.value.in_flight == 2
        with pytest.raises(WorkerMemoryExceeded):
            neighbor.outcome()


def test_memory_of_children_counts(supervise: Supervise) -> None:
    """Process (scorecard 30): what a worker's child allocates is the worker's."""
    sup = supervise(size=1, memory_cap=CAP)
    with pytest.raises(WorkerMemoryExceeded):
        sup.call("f", "spawn_allocate", {"bytes": 2 * CAP, "seconds": 60.0}, timeout=30)


def test_an_allocation_under_the_cap_passes(supervise: Supervise) -> None:
    """Process: the cap is no smaller than it says."""
    sup = supervise(size=1, memory_cap=CAP)
    assert sup.call("f", "allocate", {"bytes": 32 * MIB, "seconds": 0.2}) == 32 * MIB
    assert sup.stats()["f"]["counts"]["deaths"] == 0


def test_the_cap_holds_while_the_host_is_busy_in_c(supervise: Supervise) -> None:
    """Process (scorecard 31): the poll lives in the fork server and shares no GIL with the host."""
    import ctypes

    sup = supervise(size=1, memory_cap=CAP)
    caller = Caller(sup.call, "f", "allocate", {"bytes": 2 * CAP, "seconds": 60.0})
    eventually(lambda: sup.stats()["f"]["in_flight"] == 1)
    (pid,) = pids(sup)
    ctypes.PyDLL(None).usleep(700_000)  # holds this process's GIL
    assert not is_alive(pid)
    with pytest.raises(WorkerMemoryExceeded):
        caller.outcome()


def test_a_worker_over_the_soft_limit_is_recycled_between_calls(supervise: Supervise) -> None:
    """Process (scorecard 29): a leak costs no call."""
    sup = supervise(size=1, recycle_after_memory=64 * MIB)
    for _ in range(20):
        sup.call("f", "leak", {"bytes": 8 * MIB})
    eventually(lambda: sup.call("f", "ping")["generation"] > 1, what="a successor serves")
    assert sup.stats()["f"]["counts"]["failed"] == 0


def test_a_lost_forkserver_is_said_in_the_stats(supervise: Supervise) -> None:
    """Process (T6): `reaper` says lost, and how the cap is enforced meanwhile."""
    sup = supervise(size=1, memory_cap=CAP)
    assert sup.stats()["f"]["memory"]["cap_bytes"] == CAP
    os.kill(forkserver_pid(sup), signal.SIGKILL)
    eventually(lambda: sup.stats()["f"]["reaper"] != "fork server 0")
    assert sup.stats()["f"]["memory"]["layers"]
    all_ready(sup, 1)


def test_the_cap_holds_after_the_forkserver_is_gone(supervise: Supervise) -> None:
    """Process (T6): the supervisor polls until a new fork server has replaced the workers."""
    sup = supervise(size=1, memory_cap=CAP)
    with Gate(sup) as gate:
        holder = Caller(sup.call, *gate.command)
        gate.wait_for(1)  # keeps the old worker in service while it is being replaced
        hog = Caller(sup.call, "f", "allocate", {"bytes": 2 * CAP, "seconds": 60.0, "after": 0.3})
        eventually(lambda: sup.stats()["f"]["in_flight"] == 2)
        os.kill(forkserver_pid(sup), signal.SIGKILL)
        with pytest.raises(WorkerMemoryExceeded):
            hog.outcome()
        with pytest.raises((WorkerMemoryExceeded, CallTimeout)):
            holder.outcome()
