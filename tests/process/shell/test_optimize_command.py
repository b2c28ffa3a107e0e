"""Process: `dspex optimize`, and `dspex jobs` and `dspex job` over its journals, as a shell runs them."""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex.testing import FakeLM
from tests.process.shell.conftest import PROG, Ended, Shell
from tests.support.programs.job_tasks import ROWS, endpoint
from tests.support.waiting import eventually

DOUBLING = """

class Doubling(dspy.Module):
    def __init__(self):
        super().__init__()
        self.answer = dspy.Predict("question -> answer")

    def forward(self, question):
        return self.answer(question=question)


def is_right(example, prediction, trace=None):
    return example["answer"] == prediction["answer"]
"""
COPRO = ["--metric", "doubling:is_right", "--optimizer", "copro", "--option", "breadth=3", "--option", "depth=2"]


@pytest.fixture
def lm() -> Iterator[FakeLM]:
    with endpoint() as answering:
        yield answering


@pytest.fixture
def optimizing(tmp_path: Path, lm: FakeLM) -> Shell:
    """The command in a folder of its own."""
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "doubling.py").write_text(PROG + DOUBLING)
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return Shell(tmp_path, lm)


def listed(shell: Shell, *words: str) -> list[dict[str, Any]]:
    said = shell("jobs", "--json", *words)
    assert said.code == 0, said.err
    rows: list[dict[str, Any]] = json.loads(said.out)
    return rows


def test_the_best_is_saved_and_the_job_is_listed(optimizing: Shell, lm: FakeLM) -> None:
    """process: of a module of the folder, with a metric of it; options anywhere; progress on standard error alone."""
    words = ["-o", "best.json", "doubling:Doubling", *COPRO, "rows.jsonl", "--journal", "jobs/j.jsonl"]
    words += ["--report", "report.html"]
    said = optimizing("optimize", *words)
    assert said.code == 0, said.err
    assert said.out.startswith("score ") and "saved to best.json" in said.out and said.out.count("\n") == 1
    assert "dspex copro: " in said.err and f"{len(lm.requests)} requests" in said.out
    page = (optimizing.folder / "report.html").read_text()
    assert page.startswith("<!") and "What is 3 doubled?" in page and "Double it, in manner" in page
    document = json.loads((optimizing.folder / "best.json").read_text())
    assert document["metadata"]["dspex"]["optimizer"] == "copro"
    [row] = listed(optimizing, "--folder", "jobs")
    assert (row["state"], row["optimizer"], row["program"]) == ("done", "copro", "doubling:Doubling")
    assert (row["best"], row["requests"]) == (document["metadata"]["dspex"]["score"], len(lm.requests))
    shown = optimizing("jobs", "--folder", "jobs")
    head, line = shown.out.splitlines()
    assert head.split()[:4] == ["id", "program", "optimizer", "state"] and row["id"] in line and "done" in line
    told = optimizing("job", "jobs/j.jsonl", "--events", "--json")
    events = [json.loads(line) for line in told.out.splitlines()]
    assert events[0]["kind"] == "began" and events[-1]["kind"] == "done"
    assert next(event["facts"]["candidate"]["kind"] for event in events if "candidate" in event["facts"]) == "baseline"
    assert optimizing("job", row["id"][:12], "--folder", "jobs").out.startswith(f"id: {row['id']}\n")


def test_without_an_output_the_program_is_printed(optimizing: Shell) -> None:
    """process: alone on standard output, so that it can be sent to a file; with --json among the facts."""
    words = ["optimize", "question -> answer", "rows.jsonl", "--metric", "exact_match", "--optimizer", "labeled"]
    said = optimizing(*words, "--quiet", "--option", "k=1")  # with more demos it answers worse than without
    assert said.code == 0, said.err
    assert len(json.loads(said.out)["demos"]) == 1 and "dspex: score " in said.err
    facts = json.loads(optimizing(*words, "--json").out)
    assert facts["state"] == "done" and facts["program"]["metadata"]["dspex"]["score"] == facts["score"]
    assert facts["trials"][0]["kind"] == "baseline" and facts["journal"] is None and facts["resume"] is None


def test_an_interrupted_job_keeps_its_best_and_says_how_to_go_on(optimizing: Shell, lm: FakeLM) -> None:
    """process: what the command that it prints comes to is as if nothing had happened, and nothing is paid twice."""
    words = ["optimize", "doubling:Doubling", "rows.jsonl", *COPRO, "--output", "best.json"]
    whole = optimizing(*words, "--json")
    assert whole.code == 0, whole.err
    of_whole, expected = len(lm.requests), json.loads((optimizing.folder / "best.json").read_text())
    (optimizing.folder / "best.json").unlink()
    lm.requests.clear()
    lm._server.latency = 0.1
    process = optimizing.start(*words, "--journal", "j.jsonl")
    eventually(lambda: len(lm.requests) > of_whole // 2, within=40.0, what="half of the requests")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert out == "" and "stopped, best so far: score " in err and "saved to best.json" in err
    [again] = [line.removeprefix("dspex: to go on: dspex ") for line in err.splitlines() if "to go on: " in line]
    assert (
        again.endswith("--journal " + str(optimizing.folder / "j.jsonl") + " --resume") or "--journal j.jsonl" in again
    )
    assert dspex.load(optimizing.folder / "best.json", program=_doubling()).score is not None
    lm._server.latency = 0.0
    ended = optimizing(*shlex.split(again))
    assert ended.code == 0, ended.err
    found = json.loads((optimizing.folder / "best.json").read_text())
    assert found["answer"] == expected["answer"]
    assert found["metadata"]["dspex"]["score"] == expected["metadata"]["dspex"]["score"]
    assert len(lm.requests) <= of_whole + 16  # those that were under way


def test_a_job_is_watched_while_another_process_runs_it(optimizing: Shell, lm: FakeLM) -> None:
    """process: it is listed as running, and has a report; one that was killed is interrupted."""
    lm._server.latency = 0.2
    words = ["optimize", "doubling:Doubling", "rows.jsonl", *COPRO, "--journal", "jobs/j.jsonl"]
    process = optimizing.start(*words)
    journal = optimizing.folder / "jobs" / "j.jsonl"
    eventually(lambda: journal.exists() and b'"candidate"' in journal.read_bytes(), within=40.0, what="a candidate")
    lm._server.latency = 60.0  # it is at work until it is killed
    [row] = listed(optimizing, "--folder", "jobs")
    assert (row["state"], row["baseline"] is not None) == ("running", True)
    assert optimizing("job", row["id"], "--report", "page.html", "--folder", "jobs").code == 0
    assert row["id"] in (optimizing.folder / "page.html").read_text()
    watching = optimizing.start("job", row["id"], "--watch", "--folder", "jobs")
    process.kill()
    process.communicate(timeout=30)
    out, err = watching.communicate(timeout=30)
    assert watching.returncode == 1 and "candidate 0 (baseline, 8 examples)" in out, err
    assert listed(optimizing, "--folder", "jobs")[0]["state"] == "interrupted"


def test_a_job_is_cancelled_while_another_process_runs_it(optimizing: Shell, lm: FakeLM) -> None:
    """process: it ends there, with its best so far; a second request finds it ended."""
    lm._server.latency = 0.2
    process = optimizing.start("optimize", "doubling:Doubling", "rows.jsonl", *COPRO, "--journal", "jobs/j.jsonl")
    journal = optimizing.folder / "jobs" / "j.jsonl"
    eventually(lambda: journal.exists() and b'"candidate"' in journal.read_bytes(), within=40.0, what="a candidate")
    [row] = listed(optimizing, "--folder", "jobs")
    ended = optimizing("job", row["id"], "--cancel", "--folder", "jobs")
    assert ended.code == 0 and "state: stopped" in ended.out, ended.err
    process.communicate(timeout=30)
    assert process.returncode == 1
    again = optimizing("job", row["id"], "--cancel", "--folder", "jobs")
    assert again.code == 2 and "has ended already: stopped" in again.err


def test_damaged_journals_are_listed_with_the_reason(optimizing: Shell) -> None:
    """process: beside the others, which are read all the same."""
    words = ["optimize", "question -> answer", "rows.jsonl", "--metric", "exact_match", "--optimizer", "labeled"]
    assert optimizing(*words, "--journal", "jobs/good.jsonl", "--quiet").code == 0
    whole = (optimizing.folder / "jobs" / "good.jsonl").read_bytes()
    folder = optimizing.folder / "jobs"
    (folder / "changed.jsonl").write_bytes(whole.replace(b'"optimizer": "labeled"', b'"optimizer": "copro!!"', 1))
    (folder / "foreign.jsonl").write_text('{"question": "a"}\n')
    (folder / "version.jsonl").write_bytes(whole.replace(b'"version": 1', b'"version": 7', 1))
    (folder / "torn.jsonl").write_bytes(whole[:-9])
    (folder / "open.jsonl").write_bytes(whole)
    (folder / "open.jsonl").chmod(0o666)
    (folder / "gone.jsonl").symlink_to(folder / "good.jsonl")
    said = optimizing("jobs", "--folder", "jobs", "--json")
    rows = {Path(row["journal"]).stem: row for row in json.loads(said.out)}
    assert rows["changed"]["state"] == "damaged" and "Line 1 does not have the checksum" in rows["changed"]["message"]
    assert "no journal" in rows["foreign"]["message"] and "version 7" in rows["version"]["message"]
    assert "written by others" in rows["open"]["message"] and "cannot be opened" in rows["gone"]["message"]
    shown = optimizing("jobs", "--folder", "jobs")
    assert shown.code == 0 and "changed.jsonl: Line 1" in shown.err
    assert optimizing("job", "jobs/changed.jsonl", "--watch").code == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["question -> answer", "rows.jsonl", "--metric", "exact_mach"], "Did you mean 'exact_match'"),
        (["question -> answer", "rows.jsonl", "--metric", "f1", "--optimizer", "cobro"], "Did you mean 'copro'"),
        (["question -> answer", "rows.jsonl", "--metric", "f1", "--option", "num_trails=3"], "num_trials"),
        (["question -> answer", "rows.jsonl", "--metric", "f1", "--option", "metric=3"], "no option of an optimizer"),
        (["question -> answer", "none.jsonl", "--metric", "f1"], "'none.jsonl' cannot be read"),
        (["asked -> answer", "rows.jsonl", "--metric", "f1"], "rows.jsonl, line 1: it lacks the input 'asked'"),
        (["question -> answer", "rows.jsonl", "--metric", "f1", "-o", "no/best.json"], "there is no folder 'no'"),
        (["question -> answer", "rows.jsonl", "--metric", "f1", "-o", "best.txt"], "no .json file"),
        (["question -> answer", "rows.jsonl", "--metric", "f1", "--report", "no/r.html"], "there is no folder 'no'"),
        (["question -> answer"], "FILE is missing"),
        (["question -> answer", "rows.jsonl", "--resume"], "name it with --journal"),
        (["question -> answer", "rows.jsonl", "--metric", "f1", "--journal", "rows.jsonl"], "There is a file"),
        (["--journal", "rows.jsonl", "--resume"], "no journal"),
        (["question -> answer", "rows.jsonl", "--metric", "f1", "--optimizer=copro", "--option=breadth=1"], "breadth"),
    ],
)  # fmt: skip
def test_what_is_wrong_costs_nothing(optimizing: Shell, lm: FakeLM, words: list[str], said: str) -> None:
    """process: in one line, with the words of the command line."""
    ended: Ended = optimizing("optimize", "--quiet", *words)
    assert (ended.code, ended.out, len(lm.requests)) == (2, "", 0), ended.err
    assert said in ended.err


def test_another_optimizer_does_not_go_on_with_a_journal(optimizing: Shell, lm: FakeLM) -> None:
    """process: nor other options; with nothing but the journal, what it holds is enough."""
    words = ["optimize", "question -> answer", "rows.jsonl", "--metric", "exact_match", "--optimizer", "labeled"]
    assert optimizing(*words, "--journal", "j.jsonl", "--resume").code == 0  # there was none: it began one
    asked = len(lm.requests)
    other = optimizing(*words[:-1], "copro", "--journal", "j.jsonl", "--resume")
    assert other.code == 2 and "'labeled', not 'copro'" in other.err
    alone = optimizing("optimize", "--journal", "j.jsonl", "--resume", "-o", "best.json")
    assert alone.code == 0 and "saved to best.json" in alone.out and len(lm.requests) == asked, alone.err


def test_a_limit_ends_a_job_with_its_best(optimizing: Shell) -> None:
    """process: saved, with an exit code that says so."""
    said = optimizing("optimize", "question -> answer", "rows.jsonl", *COPRO, "--max-requests", "12", "-o", "best.json")
    assert said.code == 1 and "BudgetExceeded" in said.err and "failed, best so far: score " in said.err
    assert (optimizing.folder / "best.json").is_file() and "to go on" not in said.err


def _doubling() -> Any:
    return dspex.module("doubling:Doubling")
