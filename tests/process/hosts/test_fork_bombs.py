"""Process: programs that their own workers run again, which would start workers that do the same, and so on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dspex_worker.starting import DEPTH_MOST
from tests.process.hosts.conftest import Hosts
from tests.support.hosts.host import PRELUDE, Host

MOST = 12  # runs of the program: a bomb stops there

COUNTED = (
    PRELUDE
    + f"""
with open(__file__ + ".runs", "a") as file:
    file.write(f"{{os.getpid()}} {{os.getppid()}}\\n")
if len(open(__file__ + ".runs").readlines()) > {MOST}:
    os._exit(3)
from dspex_worker.bridge import Bridge
bridge = Bridge("own")
OWN = {{"size": 2, "startup_timeout": 30.0, "env": dict(POOL.env, DSPEX_TEST_SAYS=SAYS)}}

def refused(function):
    try:
        function()
    except dspex.errors.WorkerBootError as error:
        tell(refused=str(error), printed=error.stderr_tail)
    except dspex.errors.PoolUnhealthy as error:  # it had tried often enough before the call
        tell(refused=str(error), printed="")
    except BaseException as error:
        tell(raised=type(error).__name__)
        raise
"""
)

AS_BRIDGE = """
sup = Supervisor(pools=[PoolConfig("f", bridge=__file__, **OWN)]).start()
refused(sup.wait_ready)
sup.stop()
"""
AS_IMPORT = """
sys.path.insert(0, os.path.dirname(__file__))
with Supervisor(pools=[PoolConfig("f", bridge="faults", imports=["program"], path=sys.path[:1], **OWN)]) as sup:
    refused(lambda: sup.call("f", "ping"))
"""
BY_DEFAULT = """
dspex.configure(config=Config((PoolConfig("f", bridge=__file__, **OWN),)))
refused(lambda: dspex.default_supervisor().call("f", "ping"))
"""
BY_EXEC = AS_BRIDGE.replace("**OWN", "start_method='exec', **OWN")
IN_SETUP = """
@bridge.setup
def setup(settings):
    Supervisor(pools=[PoolConfig("f", bridge=__file__, **OWN)]).start().wait_ready()

if __name__ == "__main__":
    refused(lambda: setup({}))
"""
IN_A_THREAD = """
def start():
    refused(lambda: Supervisor(pools=[PoolConfig("f", bridge=__file__, **OWN)]).start().wait_ready())

thread = threading.Thread(target=start)
thread.start()
thread.join()
"""
CASES = {
    "bridge": AS_BRIDGE,
    "imports": AS_IMPORT,
    "default": BY_DEFAULT,
    "exec": BY_EXEC,
    "setup": IN_SETUP,
}


def _run(hosts: Hosts, tmp_path: Path, code: str, first: str = "") -> tuple[Host, list[tuple[int, int]]]:
    """Run the program to its end; give it, and (pid, parent) of each of its runs."""
    program = tmp_path / "program.py"
    program.write_text(first + COUNTED + code)
    host = hosts([sys.executable, str(program)])
    host.finish(within=60)
    lines = Path(f"{program}.runs").read_text().splitlines()
    return host, [(int(pid), int(parent)) for pid, parent in map(str.split, lines)]


@pytest.mark.parametrize("code", CASES.values(), ids=CASES)
def test_a_program_that_its_workers_import_is_refused_at_the_first_level(
    hosts: Hosts, tmp_path: Path, code: str
) -> None:
    """Process: the pool's error says what to write; no process but the program itself has started others."""
    host, runs = _run(hosts, tmp_path, code)
    (text,) = [line["refused"] for line in host.said() if line.get("refused") and line["pid"] == host.process.pid]
    assert "StartRefused" in text
    assert 'if __name__ == "__main__":' in text
    assert len(runs) < MOST
    if code is not BY_EXEC and code is not IN_SETUP:  # there the workers import it, below the fork server
        assert {parent for pid, parent in runs if pid != host.process.pid} == {host.process.pid}


def test_a_thread_of_an_import_is_refused_too(hosts: Hosts, tmp_path: Path) -> None:
    """Process: in the worker it fails there alone; nothing multiplies."""
    host, runs = _run(hosts, tmp_path, IN_A_THREAD)
    assert "StartRefused" in [line.get("raised") for line in host.said()]
    assert len(runs) < MOST


LATE = """
def start():
    time.sleep(2.0)
    refused(lambda: Supervisor(pools=[PoolConfig("f", bridge=__file__, **OWN)]).start().wait_ready())
    time.sleep(6.0)

thread = threading.Thread(target=start)
thread.start()
if __name__ == "__main__":
    thread.join()
"""


@pytest.mark.parametrize("code", [LATE, LATE.replace("**OWN", "start_method='exec', **OWN")], ids=["fork", "exec"])
def test_a_thread_that_an_import_left_running_is_refused_when_it_comes(hosts: Hosts, tmp_path: Path, code: str) -> None:
    """Process: by then the worker has started, and its commands may start supervisors; that thread may not."""
    host, runs = _run(hosts, tmp_path, code)
    raised = [line.get("raised") for line in host.said() if line["pid"] != host.process.pid]
    assert "StartRefused" in raised
    assert len(runs) < MOST


IN_A_COMMAND = """
@bridge.command()
def again(ctx, depth):
    with Supervisor(pools=[PoolConfig("f", bridge=__file__, **dict(OWN, size=1))]) as sup:
        try:
            return sup.call("f", "again", {"depth": depth + 1})
        except dspex.errors.RemoteError as error:
            return depth if "StartRefused" in str(error) else -1

if __name__ == "__main__":
    tell(depth=again(None, 0))
"""


def test_commands_that_start_supervisors_for_their_like_come_to_an_end(hosts: Hosts, tmp_path: Path) -> None:
    """Process: a command may start one, but not without end."""
    host, runs = _run(hosts, tmp_path, IN_A_COMMAND)
    assert [line["depth"] for line in host.said() if "depth" in line] == [DEPTH_MOST - 1]
    assert len(runs) < MOST


LAUNCHER = """
import os, sys
launcher = __file__ + ".launcher"
with open(os.open(launcher, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o755), "w") as file:
    file.write(f"#!/bin/sh\\n{START} {sys.executable} {__file__}\\n")
sys.executable = launcher
"""
GUARDED = """
if __name__ == "__main__":
    with Supervisor(pools=[PoolConfig("f", bridge="faults", **OWN)]) as sup:
        refused(sup.wait_ready)
"""


@pytest.mark.parametrize("start", ["exec", ""], ids=["runs it in its place", "runs it below itself"])
def test_an_interpreter_that_runs_the_program_again_is_reported(hosts: Hosts, tmp_path: Path, start: str) -> None:
    """Process: frozen programs have such a sys.executable; the second run is refused, and the first one learns why."""
    host, runs = _run(hosts, tmp_path, GUARDED, LAUNCHER.replace("{START}", start))
    (line,) = [line for line in host.said() if line.get("refused")]
    assert "no Python interpreter" in line["refused"]
    assert f"{tmp_path}/program.py.launcher" in line["refused"]
    assert "sys.executable is a launcher" in line["printed"]
    assert len(runs) < MOST


CLEANED = """
def again(*start):
    done = subprocess.run(
        [*start, sys.executable, __file__, "again"], env={"PATH": os.environ["PATH"], MARK: os.environ[MARK], **DSPEX}
    )

DSPEX = {name: os.environ[name] for name in ("DSPEX_TEST_SAYS", "PYTHONPATH") if name in os.environ}
MARK = "DSPEX_TEST_HOST"
def start():
    refused(lambda: Supervisor(pools=[PoolConfig("f", bridge=__file__, **OWN)]).start().wait_ready())

if sys.argv[1:] == ["again"] or (__name__ == "__main__" and not sys.argv[1:]):
    start()
else:
    again(*AGAIN)
"""


@pytest.mark.parametrize(
    "again", [(), ("setsid", "-w"), ("sh", "-c", '"$@"; true', "sh")], ids=["run", "session", "shell"]
)
@pytest.mark.parametrize("way", ["fork", "exec"])
def test_a_program_that_an_import_runs_with_a_cleaned_environment_is_refused(
    hosts: Hosts, tmp_path: Path, way: str, again: tuple[str, ...]
) -> None:
    """Process: nothing in its surroundings says that it is part of a start, but a process above it is one."""
    code = CLEANED.replace("**OWN", f"start_method={way!r}, **dict(OWN, size=1)").replace("AGAIN", repr(again))
    host, runs = _run(hosts, tmp_path, code)
    assert "StartRefused" in [line.get("raised") for line in host.said() if line["pid"] != host.process.pid]
    assert len(runs) < MOST
