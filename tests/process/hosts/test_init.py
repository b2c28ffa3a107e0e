"""Process: the host as PID 1 of its own namespace, as in a container without an init."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dspex.control import Client
from dspex_worker.memory.procfs import children
from tests.process.hosts.conftest import Hosts, Scripts
from tests.support.waiting import eventually

INSIDE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    if subprocess.run([*INSIDE, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("pid namespaces are not permitted here")


PROCESSES = """
assert os.getpid() == 1

def state(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"

def everybody():
    return {int(name): state(name) for name in os.listdir("/proc") if name.isdecimal()}

def rows():
    return sup.stats()["f"]["workers"]

def are_ready():
    found = [row["pid"] for row in rows() if row["phase"] == "ready"]
    return len(found) == 2 and found
"""

SERVES = """
own = subprocess.Popen(["sleep", "600"])
sup = Supervisor(pools=[POOL]).start().wait_ready()
until(are_ready)
assert sup.call("f", "echo", {"n": 1}) == {"n": 1}
forkserver = int(sup.stats()["f"]["reaper"].split()[-1])
for pid in are_ready():
    os.kill(pid, signal.SIGKILL)
until(lambda: are_ready() and sup.stats()["f"]["counts"]["deaths"] == 2)
assert sorted(everybody()) == sorted([1, own.pid, forkserver, *are_ready()]), everybody()

# without their fork server they go on, as children of this process, which reaps them and nothing else
before = are_ready()
started = [sup.call("f", "spawn", {"seconds": 600}) for _ in range(4)]
mine = subprocess.Popen(["true"])
os.kill(forkserver, signal.SIGKILL)
until(lambda: sup.stats()["f"]["reaper"] not in ("lost", f"fork server {forkserver}"))
until(lambda: are_ready() and not {*are_ready()} & {*before})
assert sup.stats()["f"]["counts"]["failed"] == 0
until(lambda: {state(pid) for pid in (forkserver, *before, *started)} == {"gone"})
until(lambda: state(mine.pid) == "Z")
assert own.poll() is None and mine.wait() == 0
assert sup.call("f", "echo", {"n": 2}) == {"n": 2}

sup.stop()
own.kill()
assert own.wait() == -signal.SIGKILL
assert everybody().keys() == {1}, everybody()
tell(done=1)
"""


def test_a_host_that_is_init_reaps_its_workers_and_nothing_else(script: Scripts) -> None:
    """Process (T6): no zombie is left, and no child of the host's own is reaped behind its back."""
    host = script(PROCESSES + SERVES, within=INSIDE)
    host.finish(within=60)
    assert [line for line in host.said() if "done" in line], host.log()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A run folder whose sockets have short paths."""
    with tempfile.TemporaryDirectory(prefix="dspex-") as path:
        yield Path(path)


def test_the_service_is_init(hosts: Hosts, folder: Path) -> None:
    """Process: `dspex start` as PID 1 serves, and stops warmly by a container's SIGTERM."""
    settings = folder / "dspex.toml"
    settings.write_text('[pools.f]\nbridge = "faults"\nsize = 2\nstop_grace = 20\n')
    command = [*INSIDE, sys.executable, "-m", "dspex.cli", "start", "--config", str(settings)]
    host = hosts(command, env={"DSPEX_RUNTIME_DIR": str(folder)})
    eventually(lambda: "ready: f" in host.log(), within=30.0, what="it is ready")
    (init,) = children(host.process.pid)
    assert (Path(f"/proc/{init}/status").read_text().partition("NSpid:")[2].split()[1]) == "1"
    with Client(folder / "default.sock") as client:
        assert client.call("f", "echo", {"n": 1}) == {"n": 1}
        everything = [init, *children(init)]
        os.kill(init, signal.SIGTERM)
    host.finish(within=30.0)
    assert "stopping on SIGTERM: 0 calls" in host.log()
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in everything))
    assert sorted(path.name for path in folder.iterdir()) == ["default.lock", "dspex.toml"]
