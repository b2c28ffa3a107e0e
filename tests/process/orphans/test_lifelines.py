"""Process: without the kernel's lifeline (switched off here, refused elsewhere) nothing outlives its supervisor either.

Workers then see the end of their pipes in threads of their own; the fork server looks at its socket and at its parent,
and kills what holds the GIL.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dspex.config import PoolConfig
from dspex.pools.supervisor import Supervisor
from dspex_worker import lifeline
from dspex_worker.wire import decode, encode
from tests.support.orphans import SPINNING, Host
from tests.support.supervisors import Supervise
from tests.support.waiting import PATIENCE, SOON, eventually, is_alive

OFF = {"DSPEX_LIFELINE": "watch"}


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    made: list[Host] = []
    yield made
    for host in made:
        host.close()


def _without(body: str) -> str:
    """The host's code, with a supervisor whose lifelines are switched off in place of the first one."""
    return (
        'sup.stop()\nsup = Supervisor(pools=[PoolConfig("f", bridge="faults", size=2, concurrency=1, stop_grace=30.0, '
        'env={"DSPEX_LIFELINE": "watch"})])\nsup.start().wait_ready()\n'
        'while sum(w["phase"] == "ready" for w in sup.stats()["f"]["workers"]) < 2:\n    time.sleep(0.01)\n'
        'assert sup.stats()["f"]["lifeline"].startswith("watch"), sup.stats()\n'
        'pids[:] = [w["pid"] for w in sup.stats()["f"]["workers"]]\n'
        'forkserver = int(sup.stats()["f"]["reaper"].split()[-1])\n'
        "pids.append(forkserver)\n" + body
    )


IN_PYTHON = """
pids.append(sup.call("f", "spawn", {"seconds": 600}))
for command in ("spin", "sleep"):
    threading.Thread(target=sup.call, args=("f", command, {"seconds": 600}), daemon=True).start()
while sup.stats()["f"]["in_flight"] < 2:
    time.sleep(0.01)
"""


def test_the_forkserver_kills_what_holds_the_gil(hosts: list[Host]) -> None:
    """Process (scorecard 4, 5): SIGKILL of the host; C code with the GIL, setsid and daemonized grandchildren."""
    host = Host(_without(SPINNING))
    hosts.append(host)
    host.process.kill()
    assert host.gone_after(PATIENCE) < SOON


def test_workers_end_by_the_end_of_their_pipes_alone(hosts: list[Host]) -> None:
    """Process (T5, T6): the fork server was killed before, so nobody else is left; a child of the group too."""
    stopped = "os.kill(forkserver, 9)\nos.kill(os.getpid(), 19)\n"
    host = Host(_without(IN_PYTHON + "tell()\n" + stopped))
    hosts.append(host)
    eventually(lambda: not is_alive(host.pids[2]), what="the fork server is dead")
    host.process.kill()
    assert host.gone_after(PATIENCE) < SOON


@pytest.mark.parametrize("switch", ["kernel", "watch"])
def test_a_forkserver_that_still_imports_ends_with_its_supervisor(tmp_path: Path, switch: str) -> None:
    """Process (T5): the host is killed while the fork server is in an import that does not end."""
    script = tmp_path / "slow_bridge.py"
    script.write_text(
        f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    )
    code = (
        "import time\nfrom dspex.config import PoolConfig\nfrom dspex.pools.supervisor import Supervisor\n"
        f"Supervisor(pools=[PoolConfig('f', bridge={str(script)!r}, env={{'DSPEX_LIFELINE': {switch!r}}})]).start()\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as host:
        forkserver = int(eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), within=30))
        assert is_alive(forkserver)
        host.kill()
    began = time.monotonic()
    eventually(lambda: not is_alive(forkserver), within=10)
    assert time.monotonic() - began < SOON


def test_a_fork_in_c_that_keeps_every_pipe_open_holds_nobody_back(hosts: list[Host]) -> None:
    """Process (C13): a sibling forked without Python's hooks holds our pipes; the fork server misses its parent."""
    host = Host(
        """
        import ctypes
        libc = ctypes.PyDLL(None)
        child = libc.fork()
        if child == 0:
            libc.sleep(600)
            libc._exit(0)
        pids.append(child)
        tell()
        time.sleep(600)
        """
    )
    hosts.append(host)
    *ours, sibling = host.pids
    host.process.kill()
    eventually(lambda: not any(map(is_alive, ours)), within=10, what="workers and fork server are gone")
    assert is_alive(sibling)


def test_calls_sessions_and_deaths_are_the_same_without_it(supervise: Supervise) -> None:
    """Process: the pool kills, replaces, forks from a warm fork server and stops as always."""
    sup = supervise(size=2, env=OFF, concurrency=1, cancel_grace=0.2)
    assert sup.stats()["f"]["lifeline"].startswith("watch")
    before = sup.call("f", "ping")
    with pytest.raises(TimeoutError):
        sup.call("f", "spin_c", {"seconds": 60.0}, timeout=0.1)
    with sup.session("f", durable=True) as session:
        session.call("remember", {"key": "k", "value": 1})
        sup.pool("f").recycle(timeout=20)
        assert session.call("recall", {"key": "k"})["value"] == 1
    assert sup.call("f", "ping")["generation"] > before["generation"]


def test_the_kernels_lifeline_is_what_is_used_here(supervise: Supervise) -> None:
    """Process (DESIGN §7): `stats` says which layer is active."""
    assert supervise(size=1).stats()["f"]["lifeline"].startswith("kernel")


def test_a_kernel_that_refuses_gets_a_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """process: F_SETSIG is an error in some sandboxes; the process is held all the same, until it is released."""

    def refuse(read_end: int) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(lifeline, "arm", refuse)
    read_end, write_end = os.pipe()
    hold = lifeline.Lifeline(read_end)
    assert hold.kind == "watch"
    hold.release()
    os.close(write_end)
    os.close(read_end)


def test_the_end_of_a_pipe_ends_the_group() -> None:
    """process: the watch alone, in a process of its own with a child in its group; by pipe and by parent."""
    code = (
        "import os, subprocess, sys, time\nfrom dspex_worker.lifeline import Lifeline\nos.setsid()\n"
        "hold = Lifeline(int(sys.argv[1]), parent=os.getppid())\n"
        "child = subprocess.Popen(['sleep', '600'])\nprint(hold.kind, child.pid, flush=True)\ntime.sleep(600)\n"
    )
    read_end, write_end = os.pipe()
    command = [sys.executable, "-c", code, str(read_end)]
    with subprocess.Popen(
        command, pass_fds=[read_end], stdout=subprocess.PIPE, text=True, env={**os.environ, **OFF}
    ) as process:
        assert process.stdout is not None
        kind, child = process.stdout.readline().split()
        assert kind == "watch"
        assert is_alive(int(child))
        os.close(write_end)
        assert process.wait(10) == -signal.SIGKILL
    eventually(lambda: not is_alive(int(child)), within=10)
    os.close(read_end)


def test_two_supervisors_and_their_lifelines_do_not_mix(supervise: Supervise) -> None:
    """Process (scorecard 38): one host, two supervisors, one with and one without; each ends its own alone."""
    watched = supervise(size=1, env=OFF)
    with Supervisor(pools=[PoolConfig("g", bridge="faults", size=1)]) as other:
        other.wait_ready()
        watched.stop()
        assert other.call("g", "echo", {"n": 1}) == {"n": 1}
        assert other.stats()["g"]["counts"]["deaths"] == 0


PARENT = """
import subprocess, sys
passed = [int(end) for end in sys.argv[1:]]
command = [sys.executable, "-P", "-m", "dspex_worker.forkserver", "--control", sys.argv[1], "--lifeline", sys.argv[2]]
print(subprocess.Popen(command, pass_fds=passed).pid, flush=True)
sys.stdin.read()
"""


def test_an_idle_forkserver_sees_its_supervisors_end_though_its_socket_stays_open() -> None:
    """Process: this process keeps the supervisor's ends, as a child does that was forked in C; there is no worker."""
    control, child_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child_lifeline, lifeline_end = os.pipe()
    with control, child_control:
        ends = (child_control.fileno(), child_lifeline)
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, *map(str, ends)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=ends,
        )
        with parent:
            forkserver = int(parent.stdout.readline())
            control.send(encode(["warm", {"pool": "f", "start_method": "exec"}]))
            said = [decode(control.recv(4096))[0] for _ in range(2)]
            parent.kill()
        eventually(lambda: not is_alive(forkserver), what="the fork server has ended")
    os.close(child_lifeline)
    os.close(lifeline_end)
    assert said == ["hello", "warm"]
