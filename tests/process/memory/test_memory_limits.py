"""Process: what a worker limits in itself (RLIMIT_DATA, oom_score_adj), and the cap that leaves no room."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dspex.errors import RemoteError, WorkerBootError, WorkerMemoryExceeded
from dspex_worker.memory.procfs import held
from dspex_worker.memory.rlimits import data_limit
from tests.support.paths import MEMORY_BRIDGE as BRIDGE
from tests.support.supervisors import Supervise
from tests.support.waiting import Caller, Gate, eventually, pids

MIB = 1024 * 1024
CAP = 96 * MIB


def test_one_huge_allocation_fails_before_a_page_of_it_exists(supervise: Supervise) -> None:
    """Process (scorecard 28): MemoryError reaches the caller as RemoteError, and the worker is replaced after it."""
    sup = supervise(size=1, memory_cap=CAP, bridge=BRIDGE)
    with pytest.raises(RemoteError) as caught:
        sup.call("f", "at_once", {"bytes": 4096 * MIB})
    assert caught.value.type == "MemoryError"
    eventually(lambda: sup.call("f", "ping")["generation"] == 2, what="a successor serves")
    assert sup.stats()["f"]["counts"]["deaths"] <= 1


def test_neighbours_of_a_failed_allocation_end_as_they_would_have(supervise: Supervise) -> None:
    """Process (DESIGN §6): the worker is replaced after its calls, none of which is lost."""
    sup = supervise(size=1, memory_cap=CAP)
    with Gate(sup) as gate:
        neighbor = Caller(sup.call, *gate.command)
        gate.wait_for(1)
        with pytest.raises(RemoteError):
            sup.call("f", "allocate", {"bytes": 4096 * MIB})
        gate.open()
        assert neighbor.outcome()


def test_growth_over_the_cap_ends_one_way_or_the_other(supervise: Supervise) -> None:
    """Process: in small steps the poll sees it first, or the limit stops it; both leave a pool that serves."""
    sup = supervise(size=1, memory_cap=CAP, bridge=BRIDGE)
    with pytest.raises((WorkerMemoryExceeded, RemoteError)):
        sup.call("f", "bit_by_bit", {"bytes": 2048 * MIB})
    eventually(lambda: sup.call("f", "ping")["generation"] == 2, what="a successor serves")


def test_an_error_that_memory_is_behind_replaces_the_worker_too(supervise: Supervise) -> None:
    """Process: a library that wraps the MemoryError does not hide it."""
    sup = supervise(size=1, memory_cap=CAP, bridge=BRIDGE)
    with pytest.raises(RemoteError) as caught:
        sup.call("f", "raise_from_exhaustion")
    assert caught.value.type == "ValueError"
    eventually(lambda: sup.call("f", "ping")["generation"] == 2, what="a successor serves")


def test_a_worker_without_any_memory_left_ends_its_calls(supervise: Supervise) -> None:
    """Process: address space that user code took for good leaves no call hanging."""
    sup = supervise(size=1, memory_cap=CAP, bridge=BRIDGE, recycle_after_memory=None)
    sup.call("f", "keep_until_it_fails", {"step": MIB})

    def serves_anew() -> bool:
        try:
            sup.call("f", "echo", {"value": "x" * (8 * MIB)}, timeout=10.0)
        except Exception as error:
            assert not isinstance(error, TimeoutError)
        return bool(sup.call("f", "ping", timeout=10.0)["generation"] > 1)

    eventually(serves_anew, what="a successor serves")


def test_idle_threads_do_not_use_up_the_limit(supervise: Supervise) -> None:
    """Process: their untouched stacks (8 MiB of address space each) are granted as they come."""
    sup = supervise(size=1, memory_cap=CAP, bridge=BRIDGE)
    assert sup.call("f", "idle_threads", {"count": 64}, timeout=60.0) == 64
    assert sup.stats()["f"]["counts"]["deaths"] == 0


def test_the_limit_is_inherited_by_children(supervise: Supervise) -> None:
    """Process: a child cannot take at once what its worker could not."""
    sup = supervise(size=1, memory_cap=CAP, bridge="faults")
    assert sup.call("f", "spawn_allocate", {"bytes": 4096 * MIB, "seconds": 30.0}) == 1  # its MemoryError


def test_pools_that_run_optimizers_have_no_data_limit(supervise: Supervise, tmp_path: Path) -> None:
    """Process (DESIGN §7): they would take a MemoryError for a bad score; the poll alone holds them, and says so."""
    script = tmp_path / "optimizing_bridge.py"
    text = Path(BRIDGE).read_text().replace('Bridge("memory")', 'Bridge("memory", runs_optimizers=True)')
    script.write_text(text)
    sup = supervise(size=1, memory_cap=CAP, bridge=str(script))
    (pid,) = pids(sup)
    assert resource.prlimit(pid, resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY
    assert any(layer.startswith("rlimit") for layer in sup.stats()["f"]["memory"]["missing"])
    with pytest.raises(WorkerMemoryExceeded) as caught:
        sup.call("f", "at_once", {"bytes": 2 * CAP, "seconds": 60.0})
    assert caught.value.layer == "poll"


def test_the_limit_is_set_before_a_worker_is_ready_and_is_said(supervise: Supervise) -> None:
    """Process: 1.25 times the cap, and the stacks of the threads that there may be; forked and exec'd alike."""
    for start_method in ("fork", "exec"):
        sup = supervise(size=1, memory_cap=CAP, bridge=BRIDGE, start_method=start_method)
        (pid,) = pids(sup)
        assert resource.prlimit(pid, resource.RLIMIT_DATA)[0] >= data_limit(CAP, 8) > 1.25 * CAP
        assert any(layer.startswith("rlimit") for layer in sup.stats()["f"]["memory"]["layers"])
        sup.stop(grace=0.0)


def test_a_pool_without_a_cap_limits_nothing(supervise: Supervise) -> None:
    """Process: no cap, no limit."""
    sup = supervise(size=1)
    (pid,) = pids(sup)
    assert resource.prlimit(pid, resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY
    assert sup.stats()["f"]["memory"]["layers"] == []


def test_workers_go_before_the_host(supervise: Supervise) -> None:
    """Process: their oom_score_adj, and that of what they start, is above the host's."""
    sup = supervise(size=1, memory_cap=CAP)
    (pid,) = pids(sup)
    child = sup.call("f", "spawn", {"seconds": 30.0, "detach": True})
    host = _oom_score(os.getpid())
    assert _oom_score(pid) > host
    assert _oom_score(child) > host
    assert f"oom_score_adj: {_oom_score(pid)}, the host has {host}" in sup.stats()["f"]["memory"]["layers"]


def test_a_cap_without_room_for_an_idle_worker_is_refused(supervise: Supervise) -> None:
    """Process (DESIGN §5): under 1.5 times what an idle worker takes; the error has the figures."""
    (pid,) = pids(supervise(size=1))
    cap = int(1.25 * held([pid]))
    with pytest.raises(WorkerBootError) as caught:
        supervise(size=1, memory_cap=cap)
    assert f"memory_cap of pool 'f' is {cap / MIB:.0f} MiB, and an idle worker takes" in str(caught.value)
    assert "give at least" in str(caught.value)


def test_a_cap_that_no_worker_can_start_under_is_refused(supervise: Supervise) -> None:
    """Process: the poll ends it while it starts; the error has the figures too."""
    with pytest.raises(WorkerBootError) as caught:
        supervise(size=1, memory_cap=3 * MIB)
    assert "memory_cap of pool 'f' is 3 MiB, and it took" in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount over /proc")
def test_a_pool_that_cannot_enforce_its_cap_says_so() -> None:
    """Process: without /proc nothing sees a worker's memory; an event at start, and the status."""
    script = textwrap.dedent(f"""
        from dspex.config import PoolConfig
        from dspex.pools.supervisor import Supervisor
        heard = []
        sup = Supervisor(pools=[PoolConfig("f", bridge="faults", size=1, memory_cap={CAP})])
        sup.on_event(lambda event: heard.append((event.name.value, event.facts.get("reason", ""))))
        with sup:
            sup.wait_ready()
            assert sup.call("f", "echo", {{"value": 1}}) == {{"value": 1}}
            said = sup.stats()["f"]["memory"]
        assert not said["is_enforced"], said
        assert "poll: /proc shows no sizes of processes" in said["missing"], said
        reasons = [reason for name, reason in heard if name == "dspex.cap.unenforced"]
        assert reasons and "/proc shows no sizes" in reasons[0], heard
    """)
    command = 'mount -t tmpfs none /proc && exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", command, sys.executable, script],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mounts here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert "dspex.cap.unenforced" in done.stderr, "it is in the log too"


def _oom_score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())
