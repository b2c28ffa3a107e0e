"""Process: workers are torn down at planned ends, on their main thread and within a bound; not when they are killed."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex.errors import DspexError
from dspex.events import Event, Name
from tests.support.supervisors import Supervise
from tests.support.waiting import eventually

BRIDGE = str(Path(__file__).parents[2] / "support" / "pools" / "teardown_bridge.py")
WHOLE = ["first main", "setup main", "import main"]
MODULE = """
import atexit
import dspy

class Keeper(dspy.Module):
    def __init__(self, path):
        super().__init__()
        self.path = path
        atexit.register(self.note, "atexit")
    def forward(self, word):
        return word.upper()
    def close(self):
        self.note("closed")
        raise RuntimeError("on purpose")
    def note(self, word):
        with open(self.path, "a") as file:
            file.write(word + "\\n")
"""


def noted(path: Path) -> dict[int, list[str]]:
    """Return what each worker noted, by pid."""
    words = defaultdict(list)
    for line in path.read_text().splitlines() if path.exists() else ():
        pid, _, rest = line.partition(" ")
        words[int(pid)].append(rest)
    return words


def pids(sup: dspex.Supervisor) -> list[int]:
    """Return the workers that are ready."""
    return [row["pid"] for row in sup.stats()["f"]["workers"] if row["phase"] == "ready"]


@pytest.mark.parametrize("method", ["fork", "exec"])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_every_planned_end_tears_down_on_the_main_thread(
    supervise: Supervise, tmp_path: Path, concurrency: int, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """process: recycle, resize, stop; what an import shares by all workers stays."""
    path = tmp_path / "noted"
    caplog.set_level(logging.INFO, "dspex")
    sup = supervise(
        bridge=BRIDGE, size=2, concurrency=concurrency, start_method=method, options={"path": str(path)}, stop_grace=5.0
    )
    eventually(lambda: len(pids(sup)) == 2 and sup.call("f", "has_shared"))
    gone = pids(sup)
    sup.pool("f").recycle(timeout=30.0)
    eventually(lambda: noted(path) == dict.fromkeys(gone, WHOLE), what="both noted all of it")
    assert sup.call("f", "has_shared")

    before = set(pids(sup))
    sup.pool("f").resize(1)
    eventually(lambda: len(pids(sup)) == 1)
    (resized,) = before - set(pids(sup))
    eventually(lambda: noted(path)[resized] == WHOLE, what="the one too many")

    caller = threading.Thread(target=sup.call, args=("f", "nap", {"seconds": 0.3}))
    caller.start()
    eventually(lambda: sup.stats()["f"]["in_flight"])
    (last,) = pids(sup)
    sup.stop()
    caller.join()
    assert noted(path)[last] == WHOLE
    assert "a last word" in caplog.text and "SystemExit: 7" in caplog.text


def test_a_cold_stop_tears_down_what_is_idle_and_kills_what_is_not(supervise: Supervise, tmp_path: Path) -> None:
    """process"""
    path = tmp_path / "noted"
    sup = supervise(bridge=BRIDGE, size=2, concurrency=1, options={"path": str(path)})
    eventually(lambda: len(pids(sup)) == 2)
    ended: list[Exception] = []

    def call() -> None:
        try:
            sup.call("f", "nap", {"seconds": 60.0})
        except DspexError as error:
            ended.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    busy = eventually(lambda: [row["pid"] for row in sup.calls() if row["phase"] == "running"])
    (idle,) = set(pids(sup)) - set(busy)
    sup.stop(grace=0.0)
    caller.join()
    assert noted(path) == {idle: WHOLE} and "stopped" in str(ended[0])


def test_a_killed_worker_is_not_torn_down(supervise: Supervise, tmp_path: Path) -> None:
    """process"""
    path = tmp_path / "noted"
    sup = supervise(bridge=BRIDGE, size=1, options={"path": str(path)})
    (killed,) = pids(sup)
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: pids(sup) not in ([], [killed]), what="its successor")
    assert noted(path) == {}


def test_a_teardown_that_does_not_end_is_killed_at_its_bound(supervise: Supervise, tmp_path: Path) -> None:
    """process: the event says which bound; the pool serves meanwhile."""
    path, seen = tmp_path / "noted", list[Event]()
    options: dict[str, Any] = {"path": str(path), "seconds": 60.0}
    sup = supervise(bridge=BRIDGE, size=1, concurrency=2, teardown_timeout=0.3, options=options)
    sup.on_event(seen.append)
    (old,) = pids(sup)
    sup.pool("f").recycle(timeout=30.0)
    assert sup.call("f", "has_shared")
    killed = eventually(lambda: [e.facts for e in seen if e.name is Name.WORKER_KILLED])
    assert [(facts["pid"], facts["reason"]) for facts in killed] == [(old, "teardown_timeout")]
    assert noted(path) == {old: ["first main"]}


def test_a_module_is_closed_with_the_worker_that_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """process: what its close raises is logged, and atexit's functions run after it."""
    (tmp_path / "keeping.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "noted"
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as sup:
        keeper = dspex.module("keeping:Keeper", path=str(path), supervisor=sup)
        assert keeper(word="well") == "WELL"
    assert path.read_text().split() == ["closed", "atexit"]
