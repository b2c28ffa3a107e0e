"""Process: jobs that run in another process of this user are cancelled and reported by their journals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex.errors import InvalidInput, JobNotCancelled, JournalError, UnknownName
from dspex.programs.optimization import cancel_request
from dspex.testing import FakeLM
from tests.support.paths import ROOT
from tests.support.programs.job_tasks import endpoint


@pytest.fixture
def lm() -> Iterator[FakeLM]:
    with endpoint(0.05) as fake:
        yield fake


@pytest.fixture
def running(lm: FakeLM, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    arguments = [lm.api_base, str(lm.api_key), str(tmp_path / "job.jsonl"), "gepa", "begin"]
    command = [sys.executable, "-m", "tests.support.programs.job_tasks", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
    try:
        lm.wait_for(lambda: len(lm.requests) > 20, 60)
        yield process
    finally:
        process.kill()
        process.communicate()


def _records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_job_of_another_process_is_cancelled_by_its_id(
    running: subprocess.Popen[bytes], lm: FakeLM, tmp_path: Path
) -> None:
    """process: it ends there as cancelled, no request follows, and nothing of the asking is left."""
    id = _records(tmp_path / "job.jsonl")[0]["id"]
    assert dspex.cancel_job(id[:-2], folder=tmp_path) == "stopped"
    assert b"OptimizationStopped" in running.communicate(timeout=30)[1]
    asked = len(lm.requests)
    assert _records(tmp_path / "job.jsonl")[-1]["kind"] == "end"
    assert [path.name for path in tmp_path.iterdir()] == ["job.jsonl"]
    with pytest.raises(InvalidInput, match="does not run: stopped"):
        dspex.cancel_job(tmp_path / "job.jsonl")
    assert len(lm.requests) == asked


def test_a_process_that_is_stopped_is_named_and_the_request_taken_back(
    running: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """process: it goes on afterwards as if nobody had asked."""
    running.send_signal(signal.SIGSTOP)
    with pytest.raises(JobNotCancelled, match=f"process {running.pid}") as found:
        dspex.cancel_job(tmp_path / "job.jsonl", wait=0.5)
    assert found.value.pid == running.pid and not cancel_request.request_path(tmp_path / "job.jsonl").exists()
    running.send_signal(signal.SIGCONT)
    assert running.wait(90) == 0


def test_what_an_earlier_request_left_cancels_nothing(lm: FakeLM, tmp_path: Path) -> None:
    """process: of whoever died while asking."""
    cancel_request.request_path(tmp_path / "job.jsonl").touch()
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1), dspex.PoolConfig("mipro", size=1)]) as sup:
        given: Any = {"optimizer": "labeled", "metric": "exact_match", "lm": lm, "supervisor": sup, "progress": False}
        rows = [{"question": f"What is {number} doubled?", "answer": str(2 * number)} for number in range(4)]
        best = dspex.optimize("question -> answer", rows, journal=tmp_path / "job.jsonl", **given)
    assert best.job.state == "done"


def test_the_report_of_a_running_job_and_of_one_that_ended(running: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """process: the page is that of `Optimized.report`, made of the journal alone; it goes on meanwhile."""
    journal, page = tmp_path / "job.jsonl", tmp_path / "page.html"
    dspex.job_report(journal, page)
    text = page.read_text()
    assert "by gepa" in text and "running" in text and "What is 3 doubled?" in text and "baseline" in text
    assert running.wait(90) == 0
    dspex.job_report(_records(journal)[0]["id"], page, folder=tmp_path)
    text, result = page.read_text(), json.loads(Path(f"{journal}.result").read_text())
    trials = result["trials"]
    assert "done" in text and f"against {trials[0]['score']:g} % before" in text
    best = next(trial for trial in trials if trial["kind"] == "result")
    assert all(word in text for word in best["instructions"]["self"].split()[:3])


def test_what_is_no_job_is_refused(tmp_path: Path) -> None:
    """unit: by name, and nothing is written."""
    foreign = tmp_path / "other.jsonl"
    foreign.write_text("{}\n")
    foreign.chmod(0o600)
    for call in (lambda name: dspex.cancel_job(name), lambda name: dspex.job_report(name, tmp_path / "page.html")):
        with pytest.raises(JournalError):
            call(tmp_path / "none.jsonl")
        with pytest.raises((JournalError, InvalidInput)):
            call(foreign)
        with pytest.raises(InvalidInput):
            call("")
    with pytest.raises(UnknownName):
        dspex.cancel_job("x1", folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other.jsonl"]
