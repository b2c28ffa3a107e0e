"""Process: `ps` tells supervisors, fork servers and workers apart; what else /proc says of them stays as it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.supervisors import Supervise
from tests.support.waiting import eventually


def shown(pid: int) -> str:
    done = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("method", ["fork", "exec"])
def test_each_process_has_a_title_of_its_own(supervise: Supervise, method: str) -> None:
    """process: whole, and its environment is still there for who reads it."""
    sup = supervise(size=2, start_method=method, env={"DSPEX_TEST_MARK": "here"})
    stats = sup.stats()["f"]
    eventually(lambda: all(row["phase"] == "ready" for row in sup.stats()["f"]["workers"]))
    forkserver = int(stats["reaper"].split()[-1])
    titles = {shown(row["pid"]) for row in sup.stats()["f"]["workers"]} | {shown(forkserver)}
    assert titles == {"dspex: f/0", "dspex: f/1", "dspex: f fork server"}
    for pid in (forkserver, *(row["pid"] for row in sup.stats()["f"]["workers"])):
        assert b"DSPEX_TEST_MARK=here" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert Path(f"/proc/{forkserver}/comm").read_text() == "dspex-warm\n"
    assert "SPT_NOENV" not in sup.call("f", "environment")


def test_without_setproctitle_workers_start_all_the_same(tmp_path: Path, supervise: Supervise) -> None:
    """process"""
    (tmp_path / "setproctitle.py").write_text("raise ImportError('not here')\n")
    sup = supervise(size=1, env={"PYTHONPATH": f"{tmp_path}:{':'.join(sys.path)}"})
    assert sup.call("f", "echo", {"word": "well"}) == {"word": "well"}
    assert "dspex_worker.forkserver" in shown(sup.stats()["f"]["workers"][0]["pid"])
