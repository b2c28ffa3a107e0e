"""Process: what counts against the cap, wherever it is held, and what does not."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from dspex.errors import WorkerMemoryExceeded
from dspex_worker.memory import procfs
from tests.support.paths import MEMORY_BRIDGE as BRIDGE
from tests.support.supervisors import Supervise
from tests.support.waiting import Caller, Gate, all_ready, descendants, eventually, forkserver_pid, is_alive

MIB = 1024 * 1024
CAP = 96 * MIB


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("mapped", {"bytes": 2 * CAP, "shared": True}),
        ("mapped", {"bytes": CAP + 16 * MIB, "shared": False}),
        ("many_children", {"bytes": 2 * CAP, "children": 8}),
        ("in_file", {"bytes": 2 * CAP, "where": "memfd"}),
        ("in_file", {"bytes": 2 * CAP, "where": "shm"}),
    ],
    ids=["shared mapping", "private mapping", "eight small children", "memfd", "file in /dev/shm"],
)
def test_memory_counts_wherever_it_is_held(supervise: Supervise, command: str, arguments: dict[str, object]) -> None:
    """Process (scorecard 30): shared mappings, files in memory that are never mapped, children that left the group."""
    sup = supervise(size=1, memory_cap=CAP, bridge=BRIDGE)
    with pytest.raises(WorkerMemoryExceeded) as caught:
        sup.call("f", command, arguments, timeout=50.0)
    assert caught.value.seen > CAP
    assert caught.value.peak >= caught.value.seen
    assert caught.value.layer == "poll"


def test_daemonized_hoarders_count_and_are_killed(supervise: Supervise, tmp_path: Path) -> None:
    """Process (scorecard 30): a process that left its worker's session and lost its parent goes with the worker."""
    sup = supervise(size=1, memory_cap=CAP, bridge=BRIDGE)
    path = tmp_path / "pid"
    with pytest.raises(WorkerMemoryExceeded):
        sup.call("f", "leave_and_hoard", {"bytes": 2 * CAP, "path": str(path)}, timeout=50.0)
    eventually(lambda: not is_alive(int(path.read_text())), what="the hoarder is dead")


def test_the_hard_limit_kills_all_that_the_worker_started(supervise: Supervise) -> None:
    """Process (DESIGN §6): children in the worker's group, in sessions of their own, and daemonized ones."""
    sup = supervise(size=1, memory_cap=CAP)
    below = [
        sup.call("f", "spawn", {"seconds": 60.0}),
        sup.call("f", "spawn", {"seconds": 60.0, "detach": True}),
        sup.call("f", "daemonize", {"seconds": 60.0}),
    ]
    assert all(map(is_alive, below))
    with pytest.raises(WorkerMemoryExceeded):
        sup.call("f", "allocate", {"bytes": 2 * CAP, "seconds": 60.0})
    eventually(lambda: not any(map(is_alive, below)), what="all of them are dead")


def test_the_hard_limit_kills_all_without_a_forkserver_too(supervise: Supervise) -> None:
    """Process (T6): the supervisor, too, finds what left the worker's group."""
    sup = supervise(size=1, memory_cap=CAP)
    below = [
        sup.call("f", "spawn", {"seconds": 60.0, "detach": True}),
        sup.call("f", "daemonize", {"seconds": 60.0}),
    ]
    with Gate(sup) as gate:
        holder = Caller(sup.call, *gate.command)
        gate.wait_for(1)  # keeps the old worker in service while it is being replaced
        hog = Caller(sup.call, "f", "allocate", {"bytes": 2 * CAP, "seconds": 60.0, "after": 0.5})
        eventually(lambda: sup.stats()["f"]["in_flight"] == 2)
        os.kill(forkserver_pid(sup), signal.SIGKILL)
        for caller in (hog, holder):
            with pytest.raises(WorkerMemoryExceeded):
                caller.outcome()
    eventually(lambda: not any(map(is_alive, below)), what="all of them are dead")


def test_pages_of_files_on_disk_do_not_count(supervise: Supervise, tmp_path: Path) -> None:
    """Process: a mapped data set larger than the cap may be read; the kernel takes its pages back when it must."""
    path = tmp_path / "data"
    with path.open("wb") as file:
        for _ in range(2 * CAP // MIB):
            file.write(b"x" * MIB)
    sup = supervise(size=1, memory_cap=CAP, bridge=BRIDGE)
    seen = tmp_path / "seen"
    reading = Caller(sup.call, "f", "read_mapped", {"path": str(path), "until": str(seen)})
    mapped = lambda: next((r for r in sup.stats()["f"]["workers"] if r["rss_bytes"] > 1.5 * CAP), None)  # noqa: E731
    row = eventually(mapped, within=60.0, what="more than the cap is resident")
    assert row["counted_bytes"] < CAP
    seen.touch()
    assert reading.outcome() > 0
    assert sup.stats()["f"]["counts"]["deaths"] == 0


def test_pages_that_children_share_count_once(supervise: Supervise) -> None:
    """Process: four forked children that only read what their parent holds do not make it five times as much."""
    sup = supervise(size=1, memory_cap=CAP, bridge=BRIDGE)
    arguments = {"bytes": 40 * MIB, "children": 4, "seconds": 1.5}
    sharing = Caller(sup.call, "f", "share_with_children", arguments)
    row = eventually(lambda: next((r for r in sup.stats()["f"]["workers"] if r["rss_bytes"] > 2 * CAP), None))
    assert row["counted_bytes"] < CAP
    assert sharing.outcome() == 40 * MIB
    assert sup.stats()["f"]["counts"]["deaths"] == 0


def test_the_soft_limit_goes_by_what_counts_and_fails_no_call(supervise: Supervise) -> None:
    """Process: a leak is drained and replaced under load; calls in flight at that moment end as they would have."""
    sup = supervise(size=2, recycle_after_memory=64 * MIB, memory_cap=160 * MIB)
    callers = [Caller(_leak_and_ping, sup) for _ in range(4)]
    for caller in callers:
        caller.outcome(within=60.0)
    counts = sup.stats()["f"]["counts"]
    assert counts["failed"] == 0
    eventually(lambda: min(row["generation"] for row in sup.stats()["f"]["workers"]) > 2, what="both were replaced")


def _leak_and_ping(sup: object) -> None:
    for _ in range(10):
        sup.call("f", "leak", {"bytes": 4 * MIB})  # type: ignore[attr-defined]
        sup.call("f", "sleep", {"seconds": 0.05})  # type: ignore[attr-defined]


def test_sizes_are_known_from_the_first_moment(supervise: Supervise) -> None:
    """Process: no ready worker is shown with 0 bytes, however young it is."""
    sup = supervise(size=2)
    for _ in range(3):
        rows = [row for row in sup.stats()["f"]["workers"] if row["phase"] == "ready"]
        assert rows
        assert all(row["rss_bytes"] > MIB and row["peak_bytes"] >= row["rss_bytes"] for row in rows)
        sup.pool("f").recycle(timeout=30.0)


def test_layers_are_said_as_they_are(supervise: Supervise) -> None:
    """Process: what holds the workers, what does not and why; the supervisor's poll while the fork server is gone."""
    sup = supervise(size=1, memory_cap=CAP)
    said = sup.stats()["f"]["memory"]
    assert said["is_enforced"]
    assert any(layer.startswith("poll by the fork server") for layer in said["layers"])
    assert len({text.partition(":")[0].split()[0] for text in [*said["layers"], *said["missing"]]}) == 4
    with Gate(sup) as gate:  # keeps the orphaned worker in service
        holder = Caller(sup.call, *gate.command)
        gate.wait_for(1)
        os.kill(forkserver_pid(sup), signal.SIGKILL)
        eventually(
            lambda: (
                any("supervisor" in layer for layer in sup.stats()["f"]["memory"]["layers"])
                or sup.stats()["f"]["reaper"] != "lost"
            )
        )
        gate.open()
        holder.outcome()
    all_ready(sup, 1)


def test_a_stopped_forkserver_is_replaced(supervise: Supervise) -> None:
    """Process (T6): one that a signal stopped could neither watch nor start workers; the cap holds again soon."""
    sup = supervise(size=1, memory_cap=CAP, bridge=BRIDGE)
    stopped = sup.call("f", "stop_parent")
    eventually(lambda: sup.stats()["f"]["reaper"] not in ("lost", f"fork server {stopped}"), what="another fork server")
    assert not is_alive(stopped)
    with pytest.raises(WorkerMemoryExceeded):
        sup.call("f", "at_once", {"bytes": CAP + 16 * MIB, "seconds": 60.0})


def test_a_worker_that_allocates_while_it_is_watched_closely_is_caught_early(supervise: Supervise) -> None:
    """Process: the poll comes every 10 ms near the cap, so a fast hoarder is not far over it when it is seen."""
    sup = supervise(size=1, memory_cap=512 * MIB, bridge=BRIDGE)
    with pytest.raises(WorkerMemoryExceeded) as caught:
        sup.call("f", "mapped", {"bytes": 4096 * MIB, "shared": True}, timeout=50.0)
    assert caught.value.seen < 1024 * MIB  # 4 GiB were asked for


def test_kernels_that_list_no_children_are_asked_for_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unit: without CONFIG_PROC_CHILDREN the tree is found all the same."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
    try:
        assert pid in procfs.children(os.getpid())
        monkeypatch.setattr(procfs, "has_children_files", lambda: False)
        assert pid in procfs.children(os.getpid())
        assert pid in descendants(os.getpid())
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
