"""Process: nothing outlives its supervisor: not after SIGKILL, not at exit, not through a forked sibling."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator

import pytest

from tests.pools.waiting import PATIENCE, SOON, eventually, is_alive

HOST = """
import json, os, sys, threading, time
from dspex.config import PoolConfig
from dspex.pools.supervisor import Supervisor

def main():
    sup = Supervisor(pools=[PoolConfig("f", bridge="faults", size=2, concurrency={concurrency}, stop_grace=30.0,
                                       start_method={start_method!r})])
    sup.start().wait_ready()
    while sum(w["phase"] == "ready" for w in sup.stats()["f"]["workers"]) < 2:
        time.sleep(0.01)
    pids = [w["pid"] for w in sup.stats()["f"]["workers"]]
    pids.append(int(sup.stats()["f"]["reaper"].split()[-1]))

    def tell():
        print(json.dumps(pids), flush=True)
{body}

main()
"""


class Host:
    """A process that runs a supervisor; `pids` are those of its workers, its template and what they started."""

    def __init__(self, body: str, *, concurrency: int = 2, start_method: str = "fork") -> None:
        indented = textwrap.indent(textwrap.dedent(body), "    ")
        code = HOST.format(body=indented, concurrency=concurrency, start_method=start_method)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.PIPE
        )
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], 60)
        line = self.process.stdout.readline() if ready else b""
        if not line:
            self.process.kill()
            with self.process:
                raise AssertionError(self.process.communicate()[1].decode())
        self.pids: list[int] = json.loads(line)

    def gone_after(self, within: float) -> float:
        """Wait until everything is gone; gives how long that took."""
        began = time.monotonic()
        eventually(lambda: not any(map(is_alive, self.pids)), within=within, what=f"{self.pids} are gone")
        return time.monotonic() - began

    def finish(self, timeout: float) -> tuple[int, bytes]:
        out, err = self.process.communicate(timeout=timeout)
        assert err == b"", err.decode()
        return self.process.returncode, out

    def close(self) -> None:
        self.process.kill()
        for pid in self.pids:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        with self.process:
            self.process.communicate()


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    made: list[Host] = []
    yield made
    for host in made:
        host.close()


SPINNING = """
children = [sup.call("f", "spawn", {"seconds": 600, "detach": detach}) for detach in (True, False)]
children.append(sup.call("f", "daemonise", {"seconds": 600}))
pids += children
for _ in range(2):
    threading.Thread(target=sup.call, args=("f", "spin_c", {"seconds": 600}), daemon=True).start()
while sup.stats()["f"]["in_flight"] < 2:
    time.sleep(0.01)
time.sleep(0.1)
tell()
time.sleep(600)
"""


@pytest.mark.parametrize("start_method", ["fork", "exec"])
@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_killed_supervisor_takes_everything_along(hosts: list[Host], concurrency: int, start_method: str) -> None:
    """Process (T4, T5, scorecard 4, 5): workers that hold the GIL in C, setsid and daemonised grandchildren.

    100 ms by design; bounded at 2 s here for busy machines.
    """
    host = Host(SPINNING, concurrency=concurrency, start_method=start_method)
    hosts.append(host)
    assert all(map(is_alive, host.pids))
    host.process.kill()
    assert host.gone_after(PATIENCE) < SOON


def test_a_forked_sibling_does_not_keep_them_alive(hosts: list[Host]) -> None:
    """Process (C13, scorecard 6): the host forks a child that outlives it; our pipes are closed there."""
    host = Host(
        """
        child = os.fork()
        if child == 0:
            time.sleep(600)
            os._exit(0)
        pids.append(child)
        tell()
        time.sleep(600)
        """
    )
    hosts.append(host)
    *ours, sibling = host.pids
    host.process.kill()
    eventually(lambda: not any(map(is_alive, ours)), within=10)
    assert is_alive(sibling)


def test_the_end_of_the_spawning_thread_ends_nothing(hosts: list[Host]) -> None:
    """Process (scorecard 7): the lifeline is tied to the process, not to the thread that started it."""
    host = Host(
        """
        made = []
        def start():
            made.append(Supervisor(pools=[PoolConfig("g", bridge="faults", size=1)]).start().wait_ready())
        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
        time.sleep(0.2)
        assert made[0].call("g", "echo", {"a": 1}) == {"a": 1}
        tell()
        made[0].stop()
        sup.stop()
        """
    )
    hosts.append(host)
    assert host.finish(30)[0] == 0


IN_A_CALL = """
def use():
    try:
        sup.call("f", "sleep", {{"seconds": 600}})
    except Exception:
        pass

threading.Thread(target=use, daemon={daemon}).start()
while not sup.stats()["f"]["in_flight"]:
    time.sleep(0.01)
tell()
"""
STOPPING = "threading.Thread(target=lambda: sup.stop(grace=600), daemon=True).start()\ntell()"
STREAMING = 'sys.stream = sup.stream("f", "count", {"n": 10**9})\nnext(sys.stream)\ntell()'


@pytest.mark.parametrize(
    "body",
    [
        "tell()",
        "tell()\nsys.exit(0)",
        IN_A_CALL.format(daemon=True),
        IN_A_CALL.format(daemon=False),
        STOPPING,
        STREAMING,
    ],
    ids=["idle", "sys.exit", "daemon thread in a call", "thread in a call", "while stopping", "open stream"],
)
def test_the_interpreter_exits_quickly_and_leaves_nothing(hosts: list[Host], body: str) -> None:
    """Process (C14, scorecard 36): exit takes less than 2 s, whatever is in flight; nothing is printed."""
    host = Host(body)
    hosts.append(host)
    began = time.monotonic()
    code, _ = host.finish(30)
    assert code == 0
    assert time.monotonic() - began < SOON  # 2 by contract; the grace is 30
    host.gone_after(5)


def test_a_process_that_dies_by_an_exception_leaves_nothing(hosts: list[Host]) -> None:
    """Process: an uncaught error in the host."""
    host = Host("tell()\nraise SystemExit(3)")
    hosts.append(host)
    assert host.finish(30)[0] == 3
    host.gone_after(5)


def test_a_forked_child_may_not_use_the_supervisor(hosts: list[Host]) -> None:
    """Process (C13, DESIGN §6): ForkedSupervisor in the child; the parent's calls go on; the child's exit is clean."""
    host = Host(
        """
        from dspex.errors import ForkedSupervisor
        results = []
        for _ in range(3):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    sup.call("f", "ping")
                except ForkedSupervisor:
                    status = 0
                for use in (lambda: sup.stream("f", "count", {"n": 1}), lambda: sup.on_event(print)):
                    try:
                        use()
                        status = 2
                    except ForkedSupervisor:
                        pass
                if f"of process {os.getppid()}" not in repr(sup):
                    status = 3
                sup.stop()
                sys.exit(status)
            results.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            for n in range(100):
                assert sup.call("f", "echo", {"n": n}) == {"n": n}
        assert results == [0, 0, 0], results
        assert sup.stats()["f"]["counts"]["deaths"] == 0
        tell()
        sup.stop()
        """
    )
    hosts.append(host)
    assert host.finish(60)[0] == 0
    host.gone_after(5)


def test_a_fork_with_calls_in_flight_and_objects_to_collect(hosts: list[Host]) -> None:
    """Process (C11, C13): finalizers in the child touch no descriptor that is someone else's by now."""
    host = Host(
        """
        import gc
        streams = [sup.stream("f", "count", {"n": 10**6}) for _ in range(3)]
        for stream in streams:
            next(stream)
        child = os.fork()
        if child == 0:
            files = [open("/dev/null", "rb") for _ in range(64)]
            del streams, stream
            gc.collect()
            for file in files:
                os.fstat(file.fileno())
            sys.exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert next(streams[0]) == 1
        for stream in streams:
            stream.close()
        assert sup.call("f", "echo", {"n": 1}) == {"n": 1}
        tell()
        sup.stop()
        """
    )
    hosts.append(host)
    assert host.finish(60)[0] == 0


def test_a_forked_child_can_start_its_own(hosts: list[Host]) -> None:
    """Process (C13): another Supervisor in the child works, beside the parent's."""
    host = Host(
        """
        child = os.fork()
        if child == 0:
            with Supervisor(pools=[PoolConfig("g", bridge="faults", size=1)]) as own:
                own.wait_ready()
                sys.exit(0 if own.call("g", "echo", {"a": 1}) == {"a": 1} else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert sup.call("f", "echo", {"n": 1}) == {"n": 1}
        tell()
        sup.stop()
        """
    )
    hosts.append(host)
    assert host.finish(60)[0] == 0
    host.gone_after(5)
