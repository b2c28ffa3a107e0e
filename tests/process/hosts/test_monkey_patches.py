"""Process: what cannot run pools is refused before anything is started, with what to do."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dspex.errors import PoolTooLarge, SettingsError
from dspex.pools import machine_limits
from dspex.pools.machine_limits import MachineLimit, require_room
from tests.support.paths import ROOT

START = """
import dspex
try:
    with dspex.Supervisor(pools=[dspex.PoolConfig("f", bridge="faults", size=1)]) as supervisor:
        supervisor.wait_ready()
        print("runs", supervisor.call("f", "echo", {"n": 1}))
except dspex.errors.DspexError as error:
    print(type(error).__name__, error)
"""
NO_EPOLL = "import select; del select.epoll\n"
GREEN = """
import _thread
def start_new_thread(*args): raise SystemExit("a green thread")
start_new_thread.__module__ = "{module}"
_thread.start_new_thread = start_new_thread
"""
REAL = """
import _thread
real = _thread.start_new_thread
def start_new_thread(*args): return real(*args)
_thread.start_new_thread = start_new_thread
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    return done.stdout


@pytest.mark.parametrize(
    "patch", [NO_EPOLL, GREEN.format(module="gevent.thread"), GREEN.format(module="eventlet.green.thread")]
)
def test_replaced_modules_are_named_before_anything_starts(patch: str) -> None:
    """process: as gevent and eventlet leave them"""
    assert run(patch + START).startswith("SettingsError select.epoll or threads are not Python's own")


def test_a_debuggers_threads_are_real() -> None:
    """process"""
    assert run(REAL + START) == "runs {'n': 1}\n"


def test_a_process_that_may_have_no_threads_is_told() -> None:
    """process: as in a full control group of pids"""
    code = "import threading\ndef start(self): raise RuntimeError('no thread')\nthreading.Thread.start = start\n"
    told = run(code + START)
    assert told.startswith("ResourceExhausted No threads are left") and "pids.max" in told


# -- sizes --


@pytest.mark.parametrize("size", [20_000, 10**9])
def test_what_the_machine_cannot_hold_is_refused_with_both_figures(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: of descriptors, processes and memory alike"""
    for what in ("descriptors", "processes", "bytes of memory"):
        limit = MachineLimit(what, 5, 1000, "somewhere")
        monkeypatch.setattr(machine_limits, "_limits", lambda limit=limit: iter([limit]))
        with pytest.raises(PoolTooLarge) as told:
            require_room("p", size)
        assert f"{size * 5:,} {what}" in str(told.value) and "1,000 (somewhere)" in str(told.value)
        assert told.value.most == 200 and told.value.key == "pools.p.size"
        require_room("p", 200)
        require_room("p", 250, present=50)
        with pytest.raises(SettingsError):
            require_room("p", 251, present=50)
