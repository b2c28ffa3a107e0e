"""Process: a service without descriptors or threads is looked at and stopped; so is one whose launcher has gone."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dspex.cli import main
from dspex.control import run_files
from dspex.control.command_client import DirectClient
from dspex.control.protocol import Role
from dspex.errors import NotRunning, ResourceExhausted
from tests.support.service import Live, Starter, is_gone
from tests.support.waiting import eventually

COMMAND = [sys.executable, "-m", "dspex.cli"]
Out = pytest.CaptureFixture[str]


def silent(one: Live) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10.0)
    sock.connect(str(one.socket))
    return sock


def descriptors(one: Live) -> list[int]:
    return [int(path.name) for path in Path(f"/proc/{one.process.pid}/fd").iterdir()]


def cpu_ticks(one: Live) -> int:
    fields = Path(f"/proc/{one.process.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@pytest.fixture
def starved(live: Starter) -> Iterator[Live]:
    """A service whose limit of descriptors is what it has, with a hundred connections that say nothing."""
    one = live()
    eventually(lambda: silent_are_gone(one), what="earlier connections are closed")
    most = max(descriptors(one)) + 1
    resource.prlimit(one.process.pid, resource.RLIMIT_NOFILE, (most, most))
    held = [silent(one) for _ in range(100)]
    yield one
    for sock in held:
        sock.close()


def silent_are_gone(one: Live) -> bool:
    with DirectClient(one.socket) as operator:
        return bool(operator.status()["supervisor"]["clients"] == 0)


def test_a_service_without_descriptors_answers_and_stops(starved: Live, capsys: Out) -> None:
    """process: one line in the log, and no traceback"""
    eventually(lambda: "dspex.control.hindered" in starved.log.read_text(), what="it has none left")
    for words in (["status"], ["health"], ["events"], ["resize", "faults", "2"], ["health"]):
        assert main(words) == 0, (words, capsys.readouterr().err, starved.log.read_text())
    assert main(["stop"]) == 0
    assert starved.process.wait(timeout=20.0) == 0
    log = starved.log.read_text()
    assert "Traceback" not in log
    assert log.count("Too many open files") <= 3
    assert not starved.socket.exists()  # what it needed to remove it was kept


def test_a_service_without_descriptors_does_not_spin(starved: Live) -> None:
    """process: while connections wait that cannot be accepted it sleeps; a loop that spins is always on a processor"""
    eventually(lambda: "dspex.control.hindered" in starved.log.read_text(), what="it has none left")
    before, began = cpu_ticks(starved), time.monotonic()
    eventually(lambda: time.monotonic() - began > 1.0, what="a second is over")
    used = (cpu_ticks(starved) - before) / os.sysconf("SC_CLK_TCK")
    assert used < 0.5 * (time.monotonic() - began)


def test_a_client_of_a_service_without_descriptors_is_told_why(live: Starter) -> None:
    """process: the reserve is for operators; they stay when it has come to an end"""
    one = live()
    eventually(lambda: silent_are_gone(one), what="earlier connections are closed")
    free = set(range(max(descriptors(one)) + 1)) - set(descriptors(one))
    most = max(descriptors(one)) + 1
    resource.prlimit(one.process.pid, resource.RLIMIT_NOFILE, (most, most))
    held: list[DirectClient] = []
    with pytest.raises(ResourceExhausted, match="LimitNOFILE") as refused:
        while len(held) < len(free) + 10:
            held.append(DirectClient(one.socket, role=Role.CLIENT))
    assert refused.value.resource == "descriptors"
    assert main(["health"]) == 0
    for client in held:
        client.close()
    eventually(lambda: can_call(one), what="there is room again") if free else None


def can_call(one: Live) -> bool:
    try:
        with DirectClient(one.socket, role=Role.CLIENT) as client:
            return bool(client.call("faults", "echo", {"x": 1}, timeout=10.0) == {"x": 1})
    except ResourceExhausted:
        return False


# -- threads: the limit of processes does not bind root, so Thread.start itself is the seam --

WITHOUT_THREADS = """
import os, sys, threading
start = threading.Thread.start
def none_left(thread):
    if os.path.exists(os.environ["NO_THREADS"]):
        raise RuntimeError("can't start new thread")
    start(thread)
threading.Thread.start = none_left
from dspex.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["status", "--json"], 0),
        (["health"], 0),
        (["events", "--recent", "3"], 0),
        (["resize", "faults", "2"], 0),
        (["recycle", "faults"], 0),
        (["forgive", "faults", "none"], 1),
        (["call", "faults", "echo", "x=1"], 0),
        (["call", "faults", "count", "n=3", "--stream"], 0),
        (["drain", "faults"], 0),
        (["stop"], 0),
        (["stop", "--now"], 0),
    ],
)
def test_a_command_needs_no_thread(live: Starter, folder: Path, words: list[str], code: int) -> None:
    """process"""
    live()
    (folder / "no-threads").touch()
    env = {**os.environ, "NO_THREADS": str(folder / "no-threads")}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THREADS, *words],
        env=env,
        capture_output=True,
        text=True,
        timeout=60.0,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert done.stderr == ""


def test_a_service_without_threads_answers_reloads_not_and_stops(folder: Path, settings: Path, capsys: Out) -> None:
    """process"""
    log = folder / "poor.out"
    env = {**os.environ, "NO_THREADS": str(folder / "no-threads")}
    with log.open("wb") as out:
        start = [sys.executable, "-c", WITHOUT_THREADS, "start", "--config", str(settings)]
        process = subprocess.Popen(start, stdout=out, stderr=out, env=env)
    try:
        eventually(lambda: "ready:" in log.read_text() or process.poll() is not None, what="it is ready", within=30.0)
        (folder / "no-threads").touch()
        for words in (["status"], ["health"], ["events"], ["resize", "faults", "2"], ["call", "faults", "echo"]):
            assert main(words) == 0, words
        process.send_signal(signal.SIGHUP)
        eventually(lambda: "not reloaded: No threads are left" in log.read_text(), what="it says why not")
        assert main(["health"]) == 0
        assert main(["stop"]) == 0
        assert process.wait(timeout=20.0) == 0
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()


# -- the launcher of a service in the background --

SLOW_BRIDGE = """
import pathlib, time
pathlib.Path({mark!r}).touch()
while not pathlib.Path({go!r}).exists():
    time.sleep(0.01)
from dspex_worker.bridge import Bridge
bridge = Bridge('slow')
@bridge.command()
def echo(ctx): return 1
"""


@pytest.fixture
def slow(folder: Path) -> Path:
    """Settings of a pool whose workers start when there is a file `go`; a file `mark` says that they try."""
    bridge = folder / "slow_bridge.py"
    bridge.write_text(SLOW_BRIDGE.format(mark=str(folder / "mark"), go=str(folder / "go")))
    settings = folder / "slow.toml"
    settings.write_text(f"[pools.slow]\nbridge = '{bridge}'\nsize = 1\n")
    return settings


def launch(slow: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "start", "--daemon", "--config", str(slow)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_an_interrupted_launcher_ends_what_it_started_and_says_so(slow: Path, folder: Path) -> None:
    """process: it would come up unseen, and end when it wants to say that it is ready"""
    with launch(slow) as launcher:
        eventually((folder / "mark").exists, what="the service is starting", within=30.0)
        run = run_files.read(run_files.socket_path("default", folder))
        assert run is not None
        launcher.send_signal(signal.SIGINT)
        out, err = launcher.communicate(timeout=60.0)
    assert launcher.returncode == 130
    assert out == ""
    assert f"the supervisor that was starting (pid {run.pid}) has been ended" in err
    assert is_gone(run.pid)
    assert "stopping on SIGTERM" in (folder / "default.log").read_text()
    assert main(["status"]) == 3


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGQUIT])  # what it cannot, or does not, pass on
def test_a_service_whose_launcher_was_killed_runs_on_and_says_so(slow: Path, folder: Path, end: signal.Signals) -> None:
    """process: nobody hears that it is ready; it serves nevertheless"""
    with launch(slow) as launcher:
        eventually((folder / "mark").exists, what="the service is starting", within=30.0)
        launcher.send_signal(end)
        launcher.wait(timeout=10.0)
    (folder / "go").touch()
    log = folder / "default.log"
    try:
        eventually(lambda: "it runs on" in log.read_text(), what="it says so", within=30.0)
        assert main(["health"]) == 0
    finally:
        assert main(["stop"]) == 0
    assert "Traceback" not in log.read_text()


def test_a_service_that_ends_at_once_says_how(folder: Path, settings: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """process: killed before it has said a word"""
    bridge = folder / "deadly_bridge.py"
    parent = "int(open('/proc/self/stat').read().rpartition(')')[2].split()[1])"
    bridge.write_text(f"import os\nos.kill({parent}, 9)\n")
    settings.write_text(f"[pools.deadly]\nbridge = '{bridge}'\nsize = 1\n")
    assert main(["start", "--daemon", "--config", str(settings)]) == 1
    err = capfd.readouterr().err
    assert "signal 9" in err or "exit code" in err
    assert str(folder / "default.log") in err


def test_nobody_there_is_3_also_without_descriptors(folder: Path) -> None:
    """unit"""
    with pytest.raises(NotRunning):
        DirectClient(folder / "none.sock")
