"""Process: `dspex start` as a real process, with real signals."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from dspex import errors
from dspex.cli import main
from dspex.control import Client, run_files
from tests.support.service import SETTINGS, Caller, Starter, in_flight, is_gone
from tests.support.waiting import eventually, freeze


def test_first_sigterm_lets_a_running_call_finish(live: Starter) -> None:
    """process: 37, the warm stop"""
    one = live()
    pids = one.workers()
    caller = Caller(one, 0.5)
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(timeout=15.0) == 0
    caller.join()
    assert caller.outcome == 0.5
    assert not one.socket.exists()
    assert not run_files.run_file_of(one.socket).exists()
    eventually(lambda: all(map(is_gone, pids)), what="workers and fork server are gone")


def test_warm_stop_takes_no_new_calls(live: Starter) -> None:
    """process: 37"""
    one = live()
    caller = Caller(one, 1.0)
    with Client(one.socket) as client:
        one.process.send_signal(signal.SIGTERM)
        eventually(lambda: client.health()["faults"]["state"] == "closed", what="the pool is closed")
        with pytest.raises(errors.PoolClosed):
            client.call("faults", "echo")
    caller.join()
    assert caller.outcome == 1.0
    assert one.process.wait(timeout=15.0) == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_ends_running_calls_at_once(live: Starter, second: signal.Signals) -> None:
    """process: 37, the cold stop"""
    one = live()
    pids = one.workers()
    caller = Caller(one, 60.0)
    with Client(one.socket) as client:
        one.process.send_signal(signal.SIGTERM)
        eventually(lambda: client.health()["faults"]["state"] == "closed", what="the warm stop has begun")
        one.process.send_signal(second)
    assert one.process.wait(timeout=10.0) == 1
    caller.join()
    assert isinstance(caller.outcome, errors.InterruptedCall | errors.UnavailableError)
    eventually(lambda: all(map(is_gone, pids)), what="workers and fork server are gone")


def test_killed_supervisor_leaves_no_process_and_its_files_are_replaced(live: Starter) -> None:
    """chaos: 4 and 38"""
    one = live()
    pids = one.workers()
    with Client(one.socket) as client:
        pids.append(client.call("faults", "spawn", {"seconds": 60.0}))
        pids.append(client.call("faults", "spawn", {"seconds": 60.0, "detach": True}))
        one.process.kill()
        one.process.wait()
        eventually(lambda: not client.is_open, what="its clients notice")
    eventually(lambda: all(map(is_gone, pids)), what="workers, fork server and their children are gone")
    assert one.socket.exists()
    again = live()
    assert again.process.poll() is None
    run = run_files.read(again.socket)
    assert run is not None
    assert run.pid == again.process.pid


def test_second_supervisor_of_one_name_is_refused_and_the_first_serves_on(live: Starter, settings: Path) -> None:
    """process: 38"""
    one = live()
    command = [sys.executable, "-m", "dspex.cli", "start", "--config", str(settings)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30.0, check=False)
    assert done.returncode == 2
    assert "runs already" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    with Client(one.socket) as client:
        assert client.call("faults", "echo", {"x": 1}) == {"x": 1}


def test_two_names_never_touch_each_other(live: Starter, capsys: pytest.CaptureFixture[str]) -> None:
    """process: 38"""
    first, second = live(name="first"), live(name="second")
    assert main(["stop", "--name", "first"]) == 0
    assert first.process.wait(timeout=10.0) == 0
    with Client(second.socket) as client:
        assert client.call("faults", "echo", {"x": 1}) == {"x": 1}
    assert main(["status", "--name", "first"]) == 3
    assert "second runs" in capsys.readouterr().err


def test_sighup_with_broken_settings_keeps_everything(live: Starter, settings: Path) -> None:
    """process: 37"""
    one = live()
    before = one.workers()
    settings.write_text("[pools.faults]\nbridge = 'faults'\nsize = -3\n")
    one.process.send_signal(signal.SIGHUP)
    eventually(lambda: "not reloaded" in one.log.read_text(), what="it says so")
    assert "pools.faults.size" in one.log.read_text()
    assert one.workers() == before


def test_sighup_replaces_the_workers_by_ones_with_new_code(live: Starter, settings: Path, folder: Path) -> None:
    """process: 37: settings and code are applied, and what needs a restart is named"""
    bridge = folder / "my_bridge.py"
    code = (
        "from dspex_worker.bridge import Bridge\nbridge = Bridge('mine')\n@bridge.command()\ndef say(ctx): return {}\n"
    )
    bridge.write_text(code.format("'old'"))
    mine = SETTINGS.replace('bridge = "faults"', f'bridge = "{bridge}"')
    settings.write_text(mine)
    one = live()
    before = one.workers()
    bridge.write_text(code.format("'newer'"))
    settings.write_text(mine.replace("size = 2", "size = 3\nqueue_limit = 7") + "\n[pools.other]\nbridge = 'faults'\n")
    with Client(one.socket) as client:
        assert client.call("faults", "say") == "old"
        one.process.send_signal(signal.SIGHUP)
        eventually(lambda: "reloaded: every worker" in one.log.read_text(), what="it says so", within=30.0)
        assert "pool 'other' is new: it needs a restart" in one.log.read_text()
        assert client.stats()["faults"]["queue_limit"] == 7
        eventually(lambda: len(one.workers()) == 4, what="three workers and the fork server")
        assert not set(before) & set(one.workers())
        assert client.call("faults", "say") == "newer"


def test_reloads_leave_no_descriptors_or_threads(live: Starter) -> None:
    """process: 37"""
    one = live()

    proc = Path(f"/proc/{one.process.pid}")

    def reload() -> None:
        said = one.log.read_text().count("reloaded: every worker")
        one.process.send_signal(signal.SIGHUP)
        eventually(lambda: one.log.read_text().count("reloaded: every worker") == said + 1, what="it reloads")
        eventually(lambda: len(one.workers()) == 3, what="calm")

    def holds() -> tuple[int, int]:
        return len(list((proc / "fd").iterdir())), len(list((proc / "task").iterdir()))

    reload()
    fds, threads = holds()
    for _ in range(4):
        reload()
    eventually(lambda: holds()[0] <= fds and holds()[1] <= threads, what="as much as before")


def test_systemd_hears_ready_reloading_and_stopping(live: Starter, folder: Path) -> None:
    """process: sd_notify"""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(20.0)
        systemd.bind(str(folder / "notify"))
        one = live(env={"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "2000000"})
        said: list[str] = []

        def hear(wanted: str) -> None:
            while not any(line.startswith(wanted) for line in said):
                said.extend(systemd.recv(65536).decode().splitlines())

        hear("READY=1")
        hear("STATUS=faults: ready")
        hear("WATCHDOG=1")
        one.process.send_signal(signal.SIGHUP)
        hear("RELOADING=1")
        hear("MONOTONIC_USEC=")
        with Client(one.socket) as client:
            assert "NOTIFY_SOCKET" not in client.call("faults", "environment")
        one.process.send_signal(signal.SIGTERM)
        hear("STOPPING=1")
        assert one.process.wait(timeout=30.0) == 0, one.log.read_text()


def test_daemon_returns_when_ready_and_stop_waits_until_it_is_gone(
    folder: Path, settings: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """process"""
    assert main(["start", "--daemon", "--config", str(settings)]) == 0
    run = run_files.read(run_files.socket_path(directory=folder))
    assert run is not None
    assert f"started pid {run.pid}" in capfd.readouterr().out
    assert main(["status"]) == 0
    assert main(["stop", "--now"]) == 0
    reap(run.pid)
    assert is_gone(run.pid)
    assert main(["status"]) == 3


def test_daemon_that_cannot_start_says_why(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """process"""
    bridge = folder / "broken_bridge.py"
    bridge.write_text("raise RuntimeError('no such thing here')\n")
    settings = folder / "broken.toml"
    settings.write_text(f"[pools.mine]\nbridge = '{bridge}'\nsize = 1\nstartup_timeout = 10\n")
    assert main(["start", "--daemon", "--config", str(settings)]) == 1
    assert "no such thing here" in capfd.readouterr().err
    assert main(["start", "--daemon", "--config", str(folder / "missing.toml")]) == 2
    assert "missing.toml" in capfd.readouterr().err
    assert not run_files.living(folder)


def test_stop_of_a_stopped_process_kills_it_only_with_now(live: Starter, capfd: pytest.CaptureFixture[str]) -> None:
    """process: SIGSTOP: it has the name but does not answer"""
    one = live()
    pids = one.workers()
    freeze(one.process.pid)
    try:
        patience = pytest.MonkeyPatch()
        patience.setattr("dspex.control.dial.HELLO_PATIENCE", 0.2)
        assert main(["status"]) == 3
        assert f"Process {one.process.pid} has that name" in capfd.readouterr().err
        assert main(["stop", "--now"]) == 1  # whether it ran calls is not known: that was no warm stop
        assert "killed" in capfd.readouterr().out
    finally:
        patience.undo()
    assert one.process.wait(timeout=10.0) == -signal.SIGKILL
    eventually(lambda: all(map(is_gone, pids)), what="workers and fork server are gone")


def test_ctrl_c_of_a_client_command_cancels_its_call(live: Starter) -> None:
    """process"""
    one = live()
    command = [sys.executable, "-m", "dspex.cli", "call", "faults", "spin", "seconds=60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        eventually(lambda: in_flight(one) == 1, what="the call runs")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10.0)
    assert process.returncode == 130
    assert err == b""
    eventually(lambda: in_flight(one) == 0, what="its worker has stopped it")


def test_lm_of_the_command_line_is_the_default_of_the_process(live: Starter) -> None:
    """process: the key stays in the supervisor: no worker has it, nor does the status"""
    canary = "sk-canary-0123456789"
    one = live("--lm", "openai/gpt-4o-mini", env={"OPENAI_API_KEY": canary})
    with Client(one.socket) as client:
        assert canary not in str(client.call("faults", "environment"))
        assert canary not in str(client.status())
        assert canary not in str(list(client.events()))
    assert canary not in one.log.read_text()
    assert canary not in Path(f"/proc/{one.process.pid}/cmdline").read_text()


def test_status_attaches_to_a_live_supervisor_from_an_event_loop(live: Starter) -> None:
    """process: `connect` and awaited calls from another process"""
    one = live()

    async def main() -> list[int]:
        async with Client(one.socket) as client:
            answers = await asyncio.gather(*(client.acall("faults", "ping") for _ in range(6)))
        return [answer["pid"] for answer in answers]

    assert set(asyncio.run(main())) <= set(one.workers())


def reap(pid: int) -> None:
    """The daemon is our own child here, since the test called `main` in this process."""
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass


def test_stop_waits_for_a_supervisor_whose_run_file_was_swept_away(live: Starter, folder: Path) -> None:
    """process: as cleaners of temporary folders do; it has told who it is itself"""
    one = live()
    run_files.run_file_of(one.socket).unlink()
    assert main(["stop"]) == 0
    assert one.process.wait(timeout=0.5) == 0


@pytest.mark.parametrize(
    "text",
    [
        "sizes = 3",
        "[lm]\nmodel = 'openai/m'\ntemprature = 1",
        "[pool.x]",
        "[budget]\nusd = 'x'",
        "[http]\nprt = 1",
        "[http]\nport = 'x'",
    ],
)
def test_wrong_settings_have_an_exit_code_of_their_own(folder: Path, settings: Path, text: str) -> None:
    """process: 2, in either ground"""
    settings.write_text(f"[pools.faults]\nbridge = 'faults'\n{text}\n")
    assert main(["start", "--config", str(settings)]) == 2


def test_a_very_short_grace_reaches_the_background(folder: Path, settings: Path) -> None:
    """process: it is written on a command line, where seconds have no exponent"""
    assert main(["start", "--config", str(settings), "--daemon", "--grace", "0.01ms"]) == 0
    assert main(["stop"]) == 0


def test_a_closed_output_is_said(
    live: Starter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """process: what was asked for is not dropped silently"""
    live()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", None)
        assert main(["call", "faults", "ping"]) == 1
    assert "output is closed" in capsys.readouterr().err


def test_the_port_of_the_settings_answers_until_the_service_stops(live: Starter, folder: Path, settings: Path) -> None:
    """process: with probes and metrics"""
    settings.write_text(settings.read_text() + "\n[http]\nport = 0\n")
    one = live()
    said = folder / "default.out"

    def url() -> str:
        found = re.search(r"answering on (http://127\.0\.0\.1:\d+)", said.read_text())
        return found[1] if found else ""

    eventually(lambda: bool(url()), what="it says where")
    with urllib.request.urlopen(f"{url()}/readyz", timeout=10) as answer:
        assert answer.status == 200
    with urllib.request.urlopen(f"{url()}/metrics", timeout=10) as answer:
        assert b'dspex_pool_ready{pool="faults"} 1.0' in answer.read()
    assert main(["stop"]) == 0
    assert one.process.wait(timeout=10) == 0
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url()}/livez", timeout=10)
