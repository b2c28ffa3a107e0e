"""Process: the commands that list, watch, restart and complete, as a shell runs them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dspex.control import run_files
from tests.support.service import Starter
from tests.support.waiting import eventually

COMMAND = [sys.executable, "-m", "dspex.cli"]


@pytest.fixture
def running(live: Starter) -> Iterator[None]:
    live()
    yield


def dspex(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command's end: what it printed, and its exit code."""
    plain = {name: value for name, value in os.environ.items() if name not in ("LINES", "COLUMNS")}
    environ = {**plain, **variables}  # without what readline has set in this process
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=60, env=environ, check=False)


def test_supervisors_are_listed_with_what_dead_ones_left(live: Starter, folder: Path) -> None:
    """process: one that is killed leaves its run file; one that is stopped does not answer"""
    live(name="well")
    killed, stuck = live(name="killed"), live(name="stuck")
    killed.process.kill()
    killed.process.wait()
    stuck.process.send_signal(signal.SIGSTOP)
    try:
        done = dspex("ls", "--json")
    finally:
        stuck.process.send_signal(signal.SIGCONT)
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert {name: row["state"] for name, row in rows.items()} == {"well": "ready", "killed": "dead", "stuck": "stuck"}
    assert rows["well"]["pools"] == ["faults"] and rows["well"]["folder"] == str(Path.cwd())
    assert rows["killed"]["pid"] == killed.process.pid
    text = dspex("ls").stdout.splitlines()
    assert text[0].split()[:4] == ["name", "pid", "state", "pools"] and len(text) == 4


def test_a_pools_commands_are_listed_with_their_arguments(running: None) -> None:
    """process: for people and as JSON; the bridge's own and those of every bridge"""
    rows = {row["name"]: row for row in json.loads(dspex("call", "faults", "--json").stdout)}
    assert {"ping", "echo", "commands", "sleep"} <= rows.keys()
    assert rows["sleep"]["arguments"] == [{"name": "seconds", "type": "float", "needed": True, "default": None}]
    assert rows["sleep"]["about"].startswith("Sleep;")
    shown = dspex("call", "faults").stdout
    assert "sleep" in shown and "seconds=float" in shown


def test_a_service_begins_anew_as_it_was_started(live: Starter, folder: Path) -> None:
    """process: the same pid and words, with what its settings say now; the call that runs comes to its end"""
    one = live("--log-level", "warning", env={"DSPEX_FAULTS_CONCURRENCY": "3"})
    before = run_files.read(one.socket)
    with subprocess.Popen([*COMMAND, "call", "faults", "sleep", "seconds=1"], stdout=subprocess.PIPE) as call:
        eventually(lambda: _running(), what="the call runs")
        done = dspex("restart", "--json")
        assert call.communicate()[0].strip() == b"1"
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "name": "default", "pid": one.process.pid, "socket": str(one.socket), "calls_cut": 0,
    }  # fmt: skip
    after = run_files.read(one.socket)
    assert before is not None and after is not None
    assert (after.pid, after.token != before.token) == (before.pid, True)
    assert dspex("stop").returncode == 0 and one.process.wait(timeout=20) == 0


def _running() -> bool:
    stats = json.loads(dspex("status", "--json").stdout)["pools"]["faults"]
    return bool(stats["in_flight"])


def test_a_restart_that_cuts_a_call_says_so(live: Starter) -> None:
    """process: 1, as a stop that does"""
    one = live()
    with subprocess.Popen([*COMMAND, "call", "faults", "sleep", "seconds=60"], stderr=subprocess.PIPE) as call:
        eventually(lambda: _running(), what="the call runs")
        done = dspex("restart", "--grace", "0.1")
        call.communicate()
    assert done.returncode == 1 and "1 call(s) were running and have been cut" in done.stdout
    assert one.process.poll() is None


def test_settings_that_became_wrong_leave_the_service_as_it_is(live: Starter, settings: Path) -> None:
    """process: nothing is stopped"""
    one = live()
    before = run_files.read(one.socket)
    settings.write_text("[pools.faults]\nsize = 'many'\n")
    done = dspex("restart")
    assert done.returncode == 2 and "pools.faults.size" in done.stderr
    assert run_files.read(one.socket) == before


def test_what_watches_goes_on_after_a_restart(live: Starter) -> None:
    """process: status and top; they say that they wait"""
    live()
    for words in (["status", "--watch", "0.05", "--json"], ["top", "--interval", "0.05", "--json"]):
        with subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watch:
            assert watch.stdout is not None
            first = json.loads(watch.stdout.readline())["supervisor"]["started_at"]
            assert dspex("restart").returncode == 0
            assert any(json.loads(line)["supervisor"]["started_at"] != first for line in watch.stdout)
            watch.send_signal(signal.SIGINT)
            watch.stdout.close()
            watch.wait(timeout=20)


def test_top_shows_pools_and_workers(running: None) -> None:
    """process: plain where there is no terminal"""
    done = dspex("top", "--count", "2", "--interval", "0.1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("faults/0") == 2 and "\x1b" not in done.stdout
    narrow = dspex("top", "--count", "1", COLUMNS="62").stdout
    assert max(map(len, narrow.splitlines())) <= 62


def test_bash_completes_commands_options_and_names_of_running_pools(running: None, tmp_path: Path) -> None:
    """process: by bash itself, with the script that the command prints"""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    place = tmp_path / "dspex"
    place.write_text(f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n')
    place.chmod(0o755)
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for words, wanted in (
        (["dspex", "rest"], "restart"),
        (["dspex", "call", "fa"], "faults"),
        (["dspex", "status", "--wat"], "--watch"),
        (["dspex", "config", "ch"], "check"),
        (["dspex", "status", "--name", "def"], "default"),
    ):
        quoted = " ".join(f"'{word}'" for word in words)
        script = (
            f'eval "$(dspex completion bash)"; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; '
            f'_dspex_completion dspex; echo "${{COMPREPLY[@]}}"'
        )
        done = subprocess.run([bash, "-c", script], capture_output=True, text=True, timeout=60, env=environ, check=True)
        assert done.stdout.split() == [wanted], (words, done.stderr)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(shell: str) -> None:
    """process: without a service; unknown shells are refused"""
    done = dspex("completion", shell)
    assert done.returncode == 0 and "_DSPEX_COMPLETE" in done.stdout
    assert dspex("completion", "tcsh").returncode == 2


def test_a_variable_that_means_nothing_is_told_at_the_start(live: Starter) -> None:
    """process: with the name that is near"""
    one = live(env={"DSPEX_FAULTS_SZIE": "3"})
    assert "DSPEX_FAULTS_SZIE means nothing to DSPex and is ignored. Did you mean DSPEX_FAULTS_SIZE?" in (
        one.log.read_text()
    )


@pytest.mark.parametrize("words", [["status"], ["ls"], ["health"], ["call", "faults"], ["config", "show"], ["--help"]])
def test_odd_outputs_bring_no_traceback(running: None, words: list[str]) -> None:
    """process: ASCII, closed, full, and a reader that goes"""
    ascii_only = dspex(*words, PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    assert ascii_only.returncode == 0 and ascii_only.stdout
    line = " ".join([*COMMAND, *words])
    for shape in (f"{line} >&-", f"{line} >/dev/full", f"{line} | head -c 1", f"{line} <&-", f"{line} <&- >&- 2>&-"):
        done = subprocess.run(["/bin/sh", "-c", shape], capture_output=True, text=True, timeout=60, check=False)
        assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, (shape, done.stderr)
