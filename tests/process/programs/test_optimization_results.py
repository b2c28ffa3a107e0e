"""Process: what an optimization gives: worse results, held-out examples, reports of jobs that ended, files for DSPy."""

from __future__ import annotations

import concurrent.futures
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex.errors import EvaluationFailed, InvalidInput
from dspex.testing import FakeLM
from tests.support.programs.job_tasks import OPTIMIZERS, ROWS, endpoint, is_right

HELD_OUT = [{"question": f"What is {number} doubled?", "answer": str(2 * number)} for number in range(100, 112)]
CANARY = "canary-7f3e"


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1), dspex.PoolConfig("mipro", size=1)]) as running:
        yield running


def spoiled() -> FakeLM:
    """An endpoint that is right until it is shown a demonstration: whatever has one is worse than the baseline."""

    def answer(request: Any) -> str:
        number = int("".join(filter(str.isdigit, request.inputs["question"])))
        return "no idea" if len(request.messages) > 2 else str(2 * number)

    return FakeLM(by_field={"answer": answer})


def optimized(sup: dspex.Supervisor, lm: Any, optimizer: str = "bootstrap", **how: Any) -> Any:
    given: Any = {"optimizer": optimizer, "metric": is_right, "progress": False, **OPTIMIZERS[optimizer], **how}
    return dspex.optimize("question -> answer", ROWS, lm=lm, supervisor=sup, **given)


def test_a_result_worse_than_the_baseline_gives_the_baseline(sup: dspex.Supervisor, tmp_path: Path) -> None:
    """process: it is flagged, a warning says so, and what was found stays at hand."""
    with spoiled() as lm:
        job = optimized(sup, lm, wait=False)
        best = job.result(60)
        assert best(question="What is 21 doubled?").answer == "42"
        best.save(tmp_path / "best.json")
        assert best.found(question="What is 21 doubled?").answer == "no idea"
        assert dspex.load(tmp_path / "best.json", lm=lm)(question="What is 4 doubled?").answer == "8"
    assert (best.score, best.baseline_score, best.found_score) == (100.0, 100.0, 0.0)
    assert best.is_worse and best.kept_baseline and best.trial == 0 and not best.program.state["demos"]
    warned = [event.facts["message"] for event in job.events() if event.kind == "warning"]
    assert any("worse than the baseline, so the baseline was kept" in text for text in warned)
    (end,) = [event.facts for event in job.events() if event.kind == "done"]
    assert end["kept_baseline"] is True and end["found_score"] == 0.0


def test_a_worse_result_is_returned_if_that_is_wanted(sup: dspex.Supervisor) -> None:
    """process: flagged all the same; also of an awaited job."""
    import asyncio

    with spoiled() as lm:
        best = optimized(sup, lm, keep_baseline=False)
        given: Any = {"optimizer": "labeled", "metric": is_right, "progress": False, "k": 2, "keep_baseline": False}
        awaited = asyncio.run(dspex.aoptimize("question -> answer", ROWS, lm=lm, supervisor=sup, **given))
    for each in (best, awaited):
        assert (each.score, each.found_score) == (0.0, 0.0) and each.is_worse and not each.kept_baseline
        assert each.program.state["demos"] and "worse than the baseline" in repr(each)


def test_held_out_examples_compare_the_result_with_the_baseline(sup: dspex.Supervisor, tmp_path: Path) -> None:
    """process: with intervals; what it costs counts in the job, and the page shows the answers."""
    with endpoint() as lm:
        best = optimized(sup, lm, "gepa", testset=HELD_OUT)
        assert best.job.requests == len(lm.requests)
        again = dspex.compare(best, best.baseline, HELD_OUT, is_right, supervisor=sup)
    test = best.test
    assert (test.score, test.other_score, len(test)) == (again.score, again.other_score, 12)
    assert tuple(test.interval) == tuple(again.interval) and test.difference == again.difference
    assert test.names == ("the optimized program", "the baseline") and "On 12 examples" in test.sentence
    assert not any(
        trial["rows"] and any(row[0] not in ("train", "val") for row in trial["rows"]) for trial in best.trials
    )
    best.report(tmp_path / "best.html")
    page = (tmp_path / "best.html").read_text()
    assert "What is 111 doubled?" in page and "Held-out examples one by one" in page


@pytest.mark.parametrize("testset", [[], [{"query": "q"}], "rows", [3], {"question": "q"}, 5])
def test_a_testset_that_cannot_be_is_refused_before_anything_is_asked(sup: dspex.Supervisor, testset: Any) -> None:
    """process"""
    with endpoint() as lm:
        with pytest.raises(InvalidInput):
            optimized(sup, lm, testset=testset)
        with pytest.raises(dspex.DspexError):
            optimized(sup, lm, keep_baseline="no")
        assert lm.requests == []


def test_a_test_that_ends_early_keeps_the_result(sup: dspex.Supervisor) -> None:
    """process: a metric that fails there, a budget, a deadline, a cancel; `partial` is the whole result, untested."""

    def failing(example: Any, prediction: Any, trace: Any = None) -> bool:
        if len(example["question"]) > 18:  # of the held-out ones
            raise ValueError("held out")
        return is_right(example, prediction)

    with endpoint() as lm:
        with pytest.raises(EvaluationFailed) as caught:
            optimized(sup, lm, metric=failing, testset=HELD_OUT)
        once = len([one for one in lm.requests if "doubled" in json.dumps(one.messages[-1])]) - 12
        with pytest.raises(dspex.BudgetExceeded) as spent:
            optimized(sup, lm, testset=HELD_OUT, budget={"requests": once + 3})
    for error in (caught.value, spent.value):
        partial: Any = error.partial
        assert partial.test is None and partial.score is not None and partial.trials[-1]["kind"] == "result"


def test_a_cancel_ends_the_test(sup: dspex.Supervisor) -> None:
    """process: at once, and the result stays."""
    with endpoint() as lm:
        job = optimized(sup, lm, testset=HELD_OUT * 100, wait=False)
        for event in job.events():
            if event.kind == "stage" and event.facts["stage"] == "test":
                job.cancel()
        with pytest.raises(dspex.OptimizationStopped) as caught:
            job.result(10)
        assert job.state == "stopped" and len(lm.requests) < 1000
    assert job.partial is caught.value.partial and job.partial.trials[-1]["kind"] == "result"


def test_a_resumed_job_is_tested_too(sup: dspex.Supervisor, tmp_path: Path) -> None:
    """process: its journal holds the held-out examples, and whether the baseline is to be kept."""
    with spoiled() as lm:
        how: Any = {"journal": tmp_path / "job.jsonl", "testset": HELD_OUT, "keep_baseline": False}
        best = optimized(sup, lm, **how)
        again = dspex.resume(tmp_path / "job.jsonl", metric=is_right, lm=lm, supervisor=sup, progress=False)
        kept = dspex.resume(
            tmp_path / "job.jsonl", metric=is_right, lm=lm, supervisor=sup, progress=False, keep_baseline=True
        )
    assert best.test.score == again.test.score == 0.0 and again.test.other_score == 100.0
    assert (again.kept_baseline, kept.kept_baseline, kept.score) == (False, True, 100.0)
    assert kept.test.score == 0.0  # what was found is tested, whatever is kept


def test_a_stopped_job_has_a_report(sup: dspex.Supervisor, tmp_path: Path) -> None:
    """process: of the best so far; and so has one that still runs."""
    with endpoint() as lm:
        job = optimized(sup, lm, "gepa", wait=False)
        for event in job.events():
            if event.kind == "candidate" and event.facts["candidate"]["number"] == 4:
                job.partial.report(tmp_path / "running.html")
                job.cancel()
    partial = job.partial
    assert job.state == "stopped" and partial.job.state == "stopped" and partial.job.id == job.id
    partial.report(tmp_path / "stopped.html")
    page = (tmp_path / "stopped.html").read_text()
    assert "stopped" in page and "Double it, in manner" in page and page.count("<circle") == len(partial.trials)
    assert partial.history()[-1]["best"] == 87.5 and partial.trials[partial.trial]["score"] == partial.score
    assert "running" in (tmp_path / "running.html").read_text()


LOADED = """
import json, sys, dspy
found = {}
for path in sys.argv[1:]:
    program = dspy.Predict("question -> answer")
    program.load(path)
    found[path] = [program.signature.instructions, [dict(demo) for demo in program.demos]]
print(json.dumps(found))
"""


def test_every_optimizers_trials_are_whole_and_its_file_is_dspys_too(sup: dspex.Supervisor, tmp_path: Path) -> None:
    """process: instructions and demos of each trial; the file holds no endpoint, key or call option; DSPy loads it."""
    with endpoint(api_key=f"key-{CANARY}") as lm:
        made = {}
        for optimizer in OPTIMIZERS:
            best = optimized(sup, lm, optimizer, keep_baseline=False)
            made[str(tmp_path / f"{optimizer}.json")] = best
            for trial in best.trials:
                assert isinstance(trial["instructions"]["self"], str) and isinstance(trial["demos"]["self"], list)
                assert len(trial["scores"]) == len(trial["rows"]) == trial["examples"] and trial["seconds"] >= 0
            assert best.trials[-1]["instructions"]["self"] == best.program.state["signature"]["instructions"]
            assert best.trials[-1]["demos"]["self"] == best.program.state["demos"]
            secret = best.using(lm=lm, timeout=7.0) if optimizer == "labeled" else best
            secret.save(tmp_path / f"{optimizer}.json")
            best.report(tmp_path / f"{optimizer}.html")
    for path in tmp_path.iterdir():
        text = path.read_text()
        assert CANARY not in text and lm.api_base not in text and "127.0.0.1" not in text, path
    command = [sys.executable, "-c", LOADED, *made]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    for path, (instructions, demos) in json.loads(done.stdout.splitlines()[-1]).items():
        state = made[path].program.state
        assert instructions == state["signature"]["instructions"]
        assert [demo["question"] for demo in demos] == [demo["question"] for demo in state["demos"]]
        assert dspex.load(path).program.state == state


def test_two_tests_at_once_do_not_meet(sup: dspex.Supervisor) -> None:
    """process: each job has its own."""
    with endpoint() as lm, concurrent.futures.ThreadPoolExecutor(2) as threads:
        jobs = [threads.submit(optimized, sup, lm, testset=HELD_OUT[: 4 + at]) for at in range(2)]
        assert sorted(len(job.result(60).test) for job in jobs) == [4, 5]
