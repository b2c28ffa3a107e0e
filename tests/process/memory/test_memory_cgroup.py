"""Unit and process: control groups: where they may be made, whose they are, and, where possible, what they enforce.

The tests marked `real` need a cgroup v2 group with the memory controller in which this process may make others; they
are skipped elsewhere, with the reason. `make cgroup` runs them in a user-mode kernel that has one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from dspex.errors import WorkerMemoryExceeded
from dspex_worker.memory import cgroup
from tests.support.paths import MEMORY_BRIDGE as BRIDGE
from tests.support.supervisors import Supervise
from tests.support.waiting import Caller, all_ready, eventually, forkserver_pid, is_alive

MIB = 1024 * 1024
CAP = 96 * MIB


def _why_not() -> str:
    try:
        cgroup.find()
    except cgroup.CgroupUnusable as error:
        return str(error)
    return ""


real = pytest.mark.skipif(bool(_why_not()), reason=f"no control groups here: {_why_not()}")


# -- where, and whose --


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder named in DSPEX_CGROUP that looks like a group, as far as plain files can."""
    group = tmp_path / "group"
    group.mkdir()
    (group / "cgroup.controllers").write_text("cpu memory pids\n")
    (group / "cgroup.subtree_control").write_text("memory\n")
    (group / "cgroup.procs").write_text("")
    monkeypatch.setenv(cgroup.VARIABLE, str(group))
    return group


def test_a_named_group_is_used(folder: Path) -> None:
    """unit"""
    assert cgroup.find() == folder


@pytest.mark.parametrize(
    ("told", "reason"),
    [("off", "switched off by DSPEX_CGROUP"), ("/nowhere", "/nowhere has no memory controller")],
)
def test_the_reason_is_said(monkeypatch: pytest.MonkeyPatch, told: str, reason: str) -> None:
    """unit"""
    monkeypatch.setenv(cgroup.VARIABLE, told)
    with pytest.raises(cgroup.CgroupUnusable, match=reason):
        cgroup.find()


def test_a_group_with_others_in_it_is_left_alone(folder: Path) -> None:
    """unit: only a group without processes may have limited groups below, and others are not ours to move."""
    (folder / "cgroup.subtree_control").write_text("")
    (folder / "cgroup.type").write_text("domain\n")
    (folder / "cgroup.procs").write_text("1\n")
    with pytest.raises(cgroup.CgroupUnusable, match="holds other processes"):
        cgroup.find()


def test_only_the_dead_are_swept(folder: Path) -> None:
    """unit: known by pid namespace, pid and start time; a reused pid is dead, a stranger's folder is not ours."""
    namespace, me = Path("/proc/self/ns/pid").stat().st_ino, os.getpid()
    start = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    kept = [f"dspex.{namespace}.{me}.{start}.0", f"dspex.1.{me}.{start}.0", "dspex.mine", "other", "dspex-host"]
    dead = [f"dspex.{namespace}.{me}.1.0", f"dspex.{namespace}.4194999.{start}.3"]
    for name in [*kept, *dead]:
        (folder / name / "f.1").mkdir(parents=True)
    cgroup.sweep(folder)
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == sorted(kept)
    assert all((folder / name / "f.1").is_dir() for name in kept)


def test_groups_that_cannot_be_made_leave_the_poll_and_say_why(folder: Path, supervise: Supervise) -> None:
    """process: the folder is none of the kernel's, so it takes no limits."""
    sup = supervise(size=1, memory_cap=CAP)
    said = sup.stats()["f"]["memory"]
    assert said["is_enforced"]
    assert f"cgroup: no group can be made below {folder}: No such file or directory" in said["missing"]
    assert [path.name for path in folder.iterdir() if path.is_dir()] == []


# -- what the kernel enforces --


@pytest.fixture
def parent() -> Iterator[Path]:
    """The group below which branches are made; none of this process's may be left in it."""
    group = cgroup.find()
    yield group
    mine = f".{os.getpid()}."
    eventually(lambda: not [p for p in group.iterdir() if p.name.startswith(cgroup.PREFIX) and mine in p.name])


@real
def test_each_worker_has_a_group_of_its_own_before_it_runs_any_code(parent: Path, supervise: Supervise) -> None:
    """process: with the cap as its limit, no swap, and killed as a whole; forked and exec'd alike."""
    for start_method in ("fork", "exec"):
        sup = supervise(size=2, memory_cap=CAP, bridge=BRIDGE, start_method=start_method)
        groups = [Path("/proc", str(pid), "cgroup").read_text().strip() for pid in all_ready(sup, 2)]
        assert len(set(groups)) == 2
        path = parent / groups[0].partition(f"/{cgroup.PREFIX}")[2].join((cgroup.PREFIX, ""))
        assert (path / "memory.max").read_text().strip() == str(CAP)
        assert (path / "memory.oom.group").read_text().strip() == "1"
        assert sup.call("f", "group_of_setup").strip() in groups
        assert any(layer.startswith("cgroup: memory.max") for layer in sup.stats()["f"]["memory"]["layers"])
        sup.stop(grace=0.0)


@real
def test_the_group_catches_what_proc_does_not_show(parent: Path, supervise: Supervise) -> None:
    """process: files in memory that nobody has open; the kernel kills, and its own count says that it was the cap."""
    sup = supervise(size=1, memory_cap=CAP, bridge=BRIDGE)
    path = Path("/dev/shm" if Path("/dev/shm").is_dir() else "/run", f"dspex-test-{os.getpid()}")
    child = sup.call("f", "ping")["pid"]
    try:
        with pytest.raises(WorkerMemoryExceeded) as caught:
            sup.call("f", "leave_file", {"bytes": 2 * CAP, "path": str(path)}, timeout=100.0)
    finally:
        path.unlink(missing_ok=True)
    assert caught.value.layer == "cgroup"
    assert caught.value.cap == CAP
    assert 0.9 * CAP < caught.value.seen <= caught.value.peak
    assert not is_alive(child)
    assert sup.call("f", "ping", timeout=60.0)["generation"] == 2


@real
def test_the_group_holds_at_any_speed_and_dies_as_a_whole(parent: Path, supervise: Supervise) -> None:
    """process: the kernel fills a block faster than any poll; what the worker had started goes with it."""
    sup = supervise(size=1, memory_cap=CAP, bridge=BRIDGE)
    with pytest.raises(WorkerMemoryExceeded) as caught:
        sup.call("f", "many_children", {"bytes": 2 * CAP, "children": 4}, timeout=100.0)
    assert caught.value.peak < 2 * CAP


@real
def test_the_cap_is_told_by_the_group_when_the_forkserver_is_gone(parent: Path, supervise: Supervise) -> None:
    """process (T6): the supervisor reads the group itself."""
    sup = supervise(size=1, memory_cap=CAP, bridge=BRIDGE)
    path = Path("/dev/shm" if Path("/dev/shm").is_dir() else "/run", f"dspex-test-{os.getpid()}")
    hoarding = Caller(sup.call, "f", "leave_file", {"bytes": 2 * CAP, "path": str(path)}, timeout=100.0)
    eventually(lambda: sup.stats()["f"]["in_flight"] == 1)
    os.kill(forkserver_pid(sup), signal.SIGKILL)
    try:
        with pytest.raises(WorkerMemoryExceeded) as caught:
            hoarding.outcome(within=100.0)
        assert caught.value.layer == "cgroup"
    finally:
        path.unlink(missing_ok=True)


@real
def test_a_group_goes_with_its_worker(parent: Path, supervise: Supervise) -> None:
    """process: recycled and killed workers leave no groups behind."""
    sup = supervise(size=2, memory_cap=CAP)
    (branch,) = [
        path for path in parent.iterdir() if path.name.startswith(cgroup.PREFIX) and f".{os.getpid()}." in path.name
    ]
    sup.pool("f").recycle(timeout=60.0)
    os.kill(all_ready(sup, 2)[0], signal.SIGKILL)
    eventually(lambda: sorted(p.name for p in branch.iterdir() if p.is_dir()) == ["f.4", "f.5"], within=60.0)


@real
def test_what_a_killed_supervisor_left_is_swept_and_the_livings_stays(parent: Path, supervise: Supervise) -> None:
    """process: SIGKILL of one supervisor beside a living one; the next to start removes the dead one's groups."""
    script = textwrap.dedent(f"""
        import time
        from dspex.config import PoolConfig
        from dspex.pools.supervisor import Supervisor
        sup = Supervisor(pools=[PoolConfig("f", bridge="faults", size=1, memory_cap={CAP})])
        sup.start(); sup.wait_ready(); print("up", flush=True); time.sleep(600)
    """)
    living = supervise(size=1, memory_cap=CAP)
    other = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"up\n"
    finally:
        other.kill()
        other.wait()
        if other.stdout is not None:
            other.stdout.close()
    left = [path for path in parent.iterdir() if f".{other.pid}." in path.name]
    assert left
    supervise(size=1, memory_cap=CAP)
    assert not any(path.exists() for path in left)
    assert living.call("f", "ping")["generation"] == 1


@real
def test_a_delegated_group_is_made_ready(parent: Path) -> None:
    """process: as a service's own group is, with Delegate=yes: the host goes into a group below, workers beside it."""
    script = textwrap.dedent(f"""
        from pathlib import Path
        from dspex.config import PoolConfig
        from dspex.pools.supervisor import Supervisor
        with Supervisor(pools=[PoolConfig("f", bridge="faults", size=1, memory_cap={CAP})]) as sup:
            sup.wait_ready()
            print(Path("/proc/self/cgroup").read_text().strip())
            print(Path("/proc", str(sup.call("f", "ping")["pid"]), "cgroup").read_text().strip())
    """)
    own = parent / "dspex-test-delegated"
    own.mkdir()
    (parent / "cgroup.subtree_control").write_text("+memory")
    try:
        os.setxattr(own, "trusted.delegate", b"1")
        host, worker = _run_in(own, script).splitlines()
        assert host == "0::/dspex-test-delegated/dspex-host"
        assert worker.startswith("0::/dspex-test-delegated/dspex.")
        assert [path.name for path in own.iterdir() if path.is_dir()] == ["dspex-host"]
        assert cgroup.ControlGroup(own / "dspex-host").remove(patience=10.0)
    finally:
        cgroup.ControlGroup(own).kill()
        assert cgroup.ControlGroup(own).remove(patience=10.0)


@real
@pytest.mark.parametrize(("groups", "cause"), [("off", "killed"), ("", "oom")], ids=["plain", "in groups"])
def test_the_kernel_takes_a_worker_before_the_host(parent: Path, groups: str, cause: str) -> None:
    """process: a group around host and workers runs out of memory; the caller learns of a dead worker and lives.

    Where workers have groups of their own, it is known for certain that it was not the worker's cap.
    """
    script = textwrap.dedent(f"""
        from dspex.config import PoolConfig
        from dspex.errors import WorkerDied
        from dspex.pools import reaper
        from dspex.pools.supervisor import Supervisor
        reaper.EXIT_PATIENCE = 5.0
        held = bytearray({64 * MIB}); held[::4096] = b"x" * len(held[::4096])   # the host is the larger one
        settings = dict(bridge="faults", size=1, recycle_after_memory=None, memory_cap={1024 * MIB})
        with Supervisor(pools=[PoolConfig("f", **settings)]) as sup:
            try:
                for _ in range(400):
                    sup.call("f", "leak", {{"bytes": {MIB}}})
            except WorkerDied as error:
                print("host lives, worker ended by", error.signal, error.cause)
    """)
    around = parent / "dspex-test-around"
    around.mkdir()
    (parent / "cgroup.subtree_control").write_text("+memory")
    try:
        (around / "memory.max").write_text(str(160 * MIB))
        os.setxattr(around, "trusted.delegate", b"1")
        assert _run_in(around, script, **{cgroup.VARIABLE: groups}) == f"host lives, worker ended by 9 {cause}\n"
    finally:
        cgroup.ControlGroup(around).kill()
        cgroup.ControlGroup(around / cgroup.HOST).remove(patience=10.0)
        assert cgroup.ControlGroup(around).remove(patience=10.0)


def _run_in(group: Path, script: str, **variables: str) -> str:
    """Run a script in a process that has moved into a group before it began; gives what it printed."""
    command = f'echo $$ > {group}/cgroup.procs; exec {sys.executable} -c "$SCRIPT"'
    environ = {**os.environ, "SCRIPT": script, **variables}
    done = subprocess.run(["sh", "-c", command], env=environ, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
