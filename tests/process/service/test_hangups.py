"""Process: terminals that close, launchers that are ended, and reasons of failed starts."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dspex.control import run_files
from tests.support.service import Starter
from tests.support.waiting import eventually

DSPEX = [sys.executable, "-P", "-m", "dspex.cli"]


def on_a_terminal(command: list[str], log: Path) -> tuple[int, int]:
    """Return the process, and the other end of its terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.execv(command[0], command)
    return pid, terminal


def is_ready() -> bool:
    return subprocess.run([*DSPEX, "health"], capture_output=True).returncode == 0


def test_a_closed_terminal_stops_the_service(folder: Path, settings: Path) -> None:
    """process: also one whose log goes elsewhere; it does not live on unseen"""
    pid, terminal = on_a_terminal([*DSPEX, "start", "--config", str(settings)], folder / "log")
    eventually(is_ready, within=30.0, what="it is ready")
    os.close(terminal)
    assert os.waitpid(pid, 0)[1] == 0
    assert "stopping on the end of its terminal" in (folder / "log").read_text()


def test_under_nohup_it_stays(folder: Path, settings: Path) -> None:
    """process: neither ended nor reloaded"""
    pid, terminal = on_a_terminal(["/usr/bin/nohup", *DSPEX, "start", "--config", str(settings)], folder / "log")
    eventually(is_ready, within=30.0, what="it is ready")
    os.close(terminal)
    os.kill(pid, signal.SIGHUP)
    assert is_ready()
    os.kill(pid, signal.SIGTERM)
    assert os.waitpid(pid, 0)[1] == 0
    assert "reloaded" not in (folder / "log").read_text()


SLOW = "import time\nfrom dspex_worker.bridge import Bridge\nbridge = Bridge('slow')\n"
SLOW += "bridge.setup(lambda settings: time.sleep(60))\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_launcher_that_is_ended_takes_along_what_it_was_starting(folder: Path, number: signal.Signals) -> None:
    """process: it never comes up unseen, and whoever waited is told"""
    (folder / "slow_bridge.py").write_text(SLOW)
    toml = folder / "slow.toml"
    toml.write_text(f"[pools.p]\nbridge = '{folder / 'slow_bridge.py'}'\nsize = 1\nstop_grace = 0\n")
    command = [*DSPEX, "start", "--daemon", "--config", str(toml)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    place = run_files.socket_path("default", folder)
    eventually(lambda: run_files.read(place) is not None, within=30.0, what="the service has its name")
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "has been ended" in said
    assert run_files.read(place) is None and not place.exists()


@pytest.mark.parametrize("where", ["import", "setup"])
def test_the_reason_of_a_failed_start_is_in_the_log(folder: Path, where: str) -> None:
    """process: with its traceback, and what the code printed"""
    fail = "print('the disk is full', file=sys.stderr, flush=True)\n{indent}raise ValueError('no such model')\n"
    body = fail.format(indent="") if where == "import" else f"def f(settings):\n    {fail.format(indent='    ')}"
    text = f"import sys\nfrom dspex_worker.bridge import Bridge\nbridge = Bridge('b')\n{body}"
    (folder / "bad_bridge.py").write_text(text + ("" if where == "import" else "bridge.setup(f)\n"))
    toml = folder / "bad.toml"
    toml.write_text(f"[pools.p]\nbridge = '{folder / 'bad_bridge.py'}'\nsize = 1\n")
    done = subprocess.run(
        [*DSPEX, "start", "--daemon", "--config", str(toml)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1 and "no such model" in done.stderr
    log = (folder / "default.log").read_text()
    assert "the disk is full" in log and "Traceback" in log and "bad_bridge.py" in log
    shown = subprocess.run(
        [*DSPEX, "--debug", "start", "--config", str(toml)], capture_output=True, text=True, timeout=60
    )
    assert "What it printed last" in shown.stderr.partition("Traceback")[2]


def test_a_drained_pool_says_so_until_it_is_resumed(live: Starter) -> None:
    """process: resize and recycle do not pass for what opens it"""
    live()

    def dspex(*words: str) -> str:
        done = subprocess.run([*DSPEX, *words], capture_output=True, text=True, timeout=60)
        return done.stdout + done.stderr

    assert "dspex resume faults" in dspex("drain", "faults")
    assert "stays closed" in dspex("resize", "faults", "3")
    assert "stays closed" in dspex("recycle", "faults")
    assert "was drained" in dspex("health")
    assert "closed" in dspex("call", "faults", "echo", "n=1")
    assert "takes calls again" in dspex("resume", "faults")
    assert '"n": 1' in dspex("call", "faults", "echo", "n=1")
    assert "not drained" in dspex("resume", "faults")
    assert "stays closed" not in dspex("resize", "faults", "2")


def test_a_service_without_a_socket_obeys_signals(folder: Path, settings: Path) -> None:
    """process: nobody can connect; it keeps no file"""
    settings.write_text(settings.read_text() + "[control]\nsocket = false\n")
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen([*DSPEX, "start", "--config", str(settings)], stderr=out, start_new_session=True)
    eventually(lambda: "ready:" in log.read_text(), within=30.0, what="it is ready")
    assert not list(folder.glob("*.sock")) and not list(folder.glob("*.json"))
    process.terminate()
    assert process.wait(timeout=30) == 0


def test_an_absurd_size_is_refused_and_the_pool_goes_on(live: Starter) -> None:
    """process: with both figures"""
    live()
    done = subprocess.run([*DSPEX, "resize", "faults", "200000000"], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "200,000,000 workers" in done.stderr and "the limit is" in done.stderr
    assert subprocess.run([*DSPEX, "call", "faults", "echo", "n=1"], capture_output=True).returncode == 0


def test_a_run_folder_that_is_not_utf_8_is_shown_escaped(folder: Path, settings: Path) -> None:
    """process"""
    odd = os.fsencode(folder) + b"/\xff"
    Path(os.fsdecode(odd)).mkdir(mode=0o700)
    env = {**os.environb, b"DSPEX_RUNTIME_DIR": odd}
    subprocess.run([*DSPEX, "start", "--daemon", "--config", str(settings)], env=env, check=True, capture_output=True)
    try:
        for words in (["status"], ["status", "--json"], ["events"]):
            done = subprocess.run([*DSPEX, *words], env=env, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
    finally:
        assert subprocess.run([*DSPEX, "stop"], env=env, capture_output=True).returncode == 0
