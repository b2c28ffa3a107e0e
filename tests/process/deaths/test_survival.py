"""Process: a worker that is killed in the middle of a pipeline's run, and what a dead host leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspex
from dspex.testing import FakeLM


def _eventually(condition: Callable[[], Any], timeout: float = 20.0) -> Any:
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.005)
    return found


def _busy_worker(sup: dspex.Supervisor) -> int | None:
    return next((row["pid"] for row in sup.stats()["dspy"]["workers"] if row["running"]), None)


def test_a_killed_worker_costs_an_attempt_and_not_the_run() -> None:
    """P6, P7: the run finishes, and its steps say what happened."""
    with FakeLM(lambda messages: {"reasoning": "r", "answer": "42"}, latency=1.0) as lm:
        pools = [dspex.PoolConfig("dspy", size=2)]
        with dspex.Supervisor(pools=pools) as sup:
            sup.wait_ready()
            pipeline = dspex.pipeline(
                [
                    dspex.native(lambda question: {"query": question.upper()}, writes=["query"], name="shout"),
                    dspex.python("dspy.ChainOfThought", signature="query -> answer", name="think"),
                ]
            )
            killed: list[int] = []

            def kill_once() -> None:
                pid = _eventually(lambda: _busy_worker(sup) if lm.requests else None)
                killed.append(pid)
                os.kill(pid, signal.SIGKILL)

            killer = threading.Thread(target=kill_once)
            killer.start()
            result = pipeline.run({"question": "why?"}, supervisor=sup, lm=lm)
            killer.join()
            assert result["answer"] == "42"
            step = result.steps["think"]
            assert killed
            assert step.attempts == 2
            assert "WorkerDied" in step.reason
            assert step.generation is not None
            _eventually(lambda: len([w for w in sup.stats()["dspy"]["workers"] if w["phase"] == "ready"]) == 2)


def test_a_killed_host_leaves_no_process_behind(tmp_path: Path) -> None:
    """T5: SIGKILL of the supervisor's process, with a DSPy worker waiting for its model."""
    pids = tmp_path / "pids"
    code = f"""
        import dspex, os, pathlib, threading
        from dspex.testing import FakeLM, FakeReply
        lm = FakeLM([FakeReply(hang=True)], retries=0)
        sup = dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=2)]).start()
        sup.wait_ready()
        def ask():
            dspex.predict("q -> a", {{"q": "x"}}, lm=lm, implementation="python", supervisor=sup)
        threading.Thread(target=ask, daemon=True).start()
        lm.wait_for(lambda: lm.requests)
        workers = [str(row["pid"]) for row in sup.stats()["dspy"]["workers"]]
        pathlib.Path({str(pids)!r}).write_text(" ".join(workers))
        threading.Event().wait()
    """
    host = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    try:
        workers = _eventually(lambda: pids.exists() and pids.read_text().split(), timeout=60)
        assert all(Path(f"/proc/{pid}").exists() for pid in workers)
    finally:
        host.kill()
        host.wait()
    _eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), timeout=2)
