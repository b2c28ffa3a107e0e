"""Process: workers that cannot start: the error says why, soon, with the end of what they printed."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import pytest

import dspex_worker
from dspex.errors import DspexError, WorkerBootError
from tests.support.supervisors import Supervise
from tests.support.waiting import SOON, all_ready, descendants, eventually, is_alive

PREFIX = """
import os, sys, time
from dspex_worker.bridge import Bridge
bridge = Bridge("mine")
"""

RAISES = PREFIX + 'print("half way", flush=True)\nraise RuntimeError("cannot be imported")\n'
EXITS = PREFIX + 'print("half way", flush=True)\nos._exit(9)\n'
HANGS = PREFIX + 'print("half way", flush=True)\ntime.sleep(600)\n'
NO_BRIDGE = "bridge = 3\n"
SETUP_RAISES = (
    PREFIX + '@bridge.setup\ndef setup(settings):\n    print("half way", flush=True)\n    raise KeyError("x")\n'
)
SETUP_HANGS = PREFIX + '@bridge.setup\ndef setup(settings):\n    print("half way", flush=True)\n    time.sleep(600)\n'
THREADED = PREFIX + "import threading\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"


def _failing(supervise: Supervise, tmp_path: Path, code: str, **settings: object) -> WorkerBootError:
    script = tmp_path / "mine_bridge.py"
    script.write_text(code)
    sup = supervise(bridge=str(script), wait=False, **settings)
    began = time.monotonic()
    with pytest.raises(WorkerBootError) as caught:
        sup.wait_ready(30)
    assert time.monotonic() - began < 15
    with pytest.raises(DspexError):
        sup.call("f", "ping", timeout=10)
    return caught.value


@pytest.mark.parametrize("start_method", ["fork", "exec"])
@pytest.mark.parametrize(
    ("code", "text"),
    [(RAISES, "cannot be imported"), (EXITS, "9"), (SETUP_RAISES, "KeyError")],
    ids=["raises", "exits", "setup raises"],
)
def test_a_bridge_that_fails_is_a_boot_error(
    supervise: Supervise, tmp_path: Path, code: str, text: str, start_method: str
) -> None:
    """Process (DESIGN §6, T05): WorkerBootError with the reason, and what was printed in stderr_tail only."""
    error = _failing(supervise, tmp_path, code, start_method=start_method)
    assert text in str(error)
    assert "half way" in error.stderr_tail
    assert "half way" not in str(error)


@pytest.mark.parametrize("start_method", ["fork", "exec"])
@pytest.mark.parametrize("code", [HANGS, SETUP_HANGS], ids=["import", "setup"])
def test_a_bridge_that_hangs_is_a_boot_error(
    supervise: Supervise, tmp_path: Path, code: str, start_method: str
) -> None:
    """Process (scorecard 24): killed at startup_timeout; no process is left hanging."""
    error = _failing(supervise, tmp_path, code, start_method=start_method, startup_timeout=2.5)
    assert "startup_timeout" in str(error)
    assert "half way" in error.stderr_tail


def test_a_script_without_a_bridge_is_a_boot_error(supervise: Supervise, tmp_path: Path) -> None:
    """Process: the message names what is missing."""
    assert "binds no" in str(_failing(supervise, tmp_path, NO_BRIDGE))


def test_an_import_that_does_not_exist_is_a_boot_error(supervise: Supervise) -> None:
    """Process: `imports` of the pool are loaded before anybody is served."""
    sup = supervise(imports=["no_such_module_anywhere"], wait=False)
    with pytest.raises(WorkerBootError, match="no_such_module_anywhere"):
        sup.wait_ready(20)


def test_a_missing_interpreter_is_a_boot_error(supervise: Supervise) -> None:
    """Process (T08): said at once, and retried with back-off instead of a spin."""
    sup = supervise(start_method="exec", python="/nonexistent/python", wait=False)
    with pytest.raises(WorkerBootError, match="No such file"):
        sup.wait_ready(20)
    with pytest.raises(DspexError):
        sup.call("f", "ping", timeout=5)


def test_an_interpreter_without_the_package_is_a_boot_error(supervise: Supervise) -> None:
    """Process: another virtualenv that lacks dspex_worker says so in its stderr."""
    sup = supervise(start_method="exec", python="/bin/false", wait=False)
    with pytest.raises(WorkerBootError, match="status 1"):
        sup.wait_ready(20)


@pytest.mark.parametrize("line", ["exec sleep 600", "sleep 600; true"], ids=["alone", "with a child"])
def test_an_interpreter_that_is_none_is_a_boot_error(supervise: Supervise, tmp_path: Path, line: str) -> None:
    """Process: it never says a word; it is reported as such, and ended with what it started."""
    program = tmp_path / "no-python"
    program.write_text(f"#!/bin/sh\n{line}\n")
    program.chmod(0o755)
    sup = supervise(start_method="exec", python=str(program), startup_timeout=0.5, wait=False)
    with pytest.raises(WorkerBootError, match=r"no-python .* within 0\.5 s .* no Python interpreter"):
        sup.wait_ready(20)


def test_an_interpreter_that_a_signal_ends_is_named_with_the_signal(
    supervise: Supervise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process: a fork server that never came to its code because it was killed."""
    program = tmp_path / "killed"
    program.write_text("#!/bin/sh\nkill -SEGV $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    sup = supervise(start_method="fork", python=str(program), wait=False)
    with pytest.raises(WorkerBootError, match=r"killed, which was to run dspex_worker\.forkserver, .* by signal 11"):
        sup.wait_ready(20)


NESTED = """
import os, subprocess
from dspex_worker.bridge import Bridge
bridge = Bridge("nested")

@bridge.command()
def nested(ctx, bridge):
    import dspex
    with dspex.Supervisor(pools=[dspex.PoolConfig("f", bridge=bridge, size=1)]) as sup:
        return [sup.call("f", "ping")["pid"], os.getpid()]

@bridge.command()
def variables(ctx):
    return subprocess.run(["env"], capture_output=True, text=True).stdout
"""


@pytest.mark.parametrize("start_method", ["fork", "exec"])
@pytest.mark.parametrize("bridge", ["faults", "its own"])
def test_a_command_may_start_a_supervisor(supervise: Supervise, tmp_path: Path, bridge: str, start_method: str) -> None:
    """Process: only while workers start is it refused; afterwards they may, also one with the very same bridge."""
    script = tmp_path / "nested_bridge.py"
    script.write_text(NESTED)
    sup = supervise(size=1, bridge=str(script), start_method=start_method)
    inner, outer = sup.call("f", "nested", {"bridge": str(script) if bridge == "its own" else bridge})
    assert inner != outer
    assert "DSPEX_STARTING" not in sup.call("f", "variables")
    eventually(lambda: not is_alive(inner))


def test_a_repaired_bridge_is_served_again(supervise: Supervise, tmp_path: Path) -> None:
    """Process: the start is tried again with back-off, and with the new code."""
    script = tmp_path / "mine_bridge.py"
    script.write_text(RAISES)
    sup = supervise(bridge=str(script), size=1, wait=False)
    with pytest.raises(WorkerBootError):
        sup.wait_ready(20)
    script.write_text(PREFIX)
    eventually(sup.pool("f")._dispatcher.is_serving, within=30)
    assert sup.call("f", "ping")["worker"] == "f/0"


def test_stopping_while_workers_start_leaves_nothing(supervise: Supervise, tmp_path: Path) -> None:
    """Process (T09): stop() during a hanging import."""
    script = tmp_path / "mine_bridge.py"
    script.write_text(HANGS)
    sup = supervise(bridge=str(script), wait=False)
    pid = eventually(lambda: sup.stats()["f"]["reaper"] != "lost" and sup.stats()["f"]["reaper"].split()[-1])
    began = time.monotonic()
    sup.stop(grace=0.0)
    assert time.monotonic() - began < SOON
    assert descendants(int(pid)) == []


def test_a_forkserver_with_threads_is_not_forked(supervise: Supervise, tmp_path: Path) -> None:
    """Process (T7): code that starts threads at import is exec'd instead, and works."""
    script = tmp_path / "mine_bridge.py"
    script.write_text(THREADED)
    heard = []
    sup = supervise(bridge=str(script), size=1, start=False)
    sup.on_event(heard.append)
    sup.start()
    sup.wait_ready()
    assert sup.call("f", "ping")["worker"] == "f/0"
    (warmed,) = [event for event in heard if event.name == "dspex.forkserver.warmed"]
    assert warmed.facts["forks"] is False


def test_children_of_the_forkserver_draw_different_numbers(supervise: Supervise, tmp_path: Path) -> None:
    """Process (T7): each worker's random generator is its own."""
    script = tmp_path / "mine_bridge.py"
    code = "import random\nrandom.random()\n@bridge.setup\ndef draw(settings):\n    print('drew', random.random())\n"
    script.write_text(PREFIX + code)
    sup = supervise(bridge=str(script), size=2)
    all_ready(sup, 2)
    workers = sup.pool("f")._dispatcher.workers.values()
    drawn = eventually(lambda: all(w.stderr.total for w in workers) and [w.stderr.text() for w in workers])
    assert len(set(drawn)) == 2


def _other_protocol(tmp_path: Path) -> Path:
    """A copy of the worker package that speaks the next major version."""
    source = Path(dspex_worker.__file__).parent
    package = tmp_path / "dspex_worker"
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__", "programs"))
    messages = package / "wire" / "messages.py"
    text = messages.read_text()
    assert "PROTOCOL: Final = (1, 1)" in text
    messages.write_text(text.replace("PROTOCOL: Final = (1, 1)", "PROTOCOL: Final = (2, 0)"))
    return tmp_path


def test_a_worker_of_another_protocol_version_is_refused(supervise: Supervise, tmp_path: Path) -> None:
    """Process (DESIGN §6): the boot error names both versions, and where the other package lies."""
    path = _other_protocol(tmp_path)
    sup = supervise(start_method="exec", env={"PYTHONPATH": str(path)}, wait=False)
    with pytest.raises(WorkerBootError, match="speaks dspex 2") as caught:
        sup.wait_ready(20)
    assert str(path) in str(caught.value)
