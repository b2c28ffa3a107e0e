"""Process: metrics that are slow, that hang, and that wait on event loops, called back from real workers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex.errors import EvaluationFailed, MetricTimeout, SettingsError, TooManyToolsLeft
from dspex.services import metric_limit
from dspex.services.metric_limit import left_threads
from dspex.testing import FakeLM
from tests.support.paths import ROOT
from tests.support.waiting import eventually

ROWS = [{"question": f"q{number}", "answer": "a"} for number in range(40)]
AT_ONCE = 32
SEARCH: Any = {
    "optimizer": "random_search", "num_candidate_programs": 1, "max_bootstrapped_demos": 1, "num_threads": AT_ONCE
}  # fmt: skip


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    env = {"PYTHONPATH": f"{ROOT}:{ROOT}/workers"}
    pools = [
        dspex.PoolConfig("dspy", size=1, imports=[__name__], env=env),
        dspex.PoolConfig("mipro", size=2, imports=[__name__], env=env, cancel_grace=0.3),
    ]
    with dspex.Supervisor(pools=pools) as supervisor:
        supervisor.wait_ready()
        yield supervisor


@pytest.fixture
def lm() -> Iterator[FakeLM]:
    with FakeLM(lambda messages: {"answer": "a"}) as fake:
        yield fake


def program(sup: dspex.Supervisor, lm: FakeLM) -> Any:
    return dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup)


class Meeting:
    """A metric that lets nobody go before so many are there."""

    def __init__(self, count: int) -> None:
        self.barrier = threading.Barrier(count)

    def __call__(self, example: Any, pred: Any, trace: Any = None) -> bool:
        if trace is None:  # demonstrations are collected one by one
            self.barrier.wait(60)
        return True


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_job_has_32_slow_metrics_in_flight(sup: dspex.Supervisor, lm: FakeLM, jobs: int) -> None:
    """process: of one job, and of two jobs in one pool at the same time."""
    metric, rows = Meeting(AT_ONCE * jobs), ROWS[:AT_ONCE]
    begun = [dspex.optimize(program(sup, lm), rows, metric=metric, **SEARCH, wait=False) for _ in range(jobs)]
    assert [job.result(timeout=90).score for job in begun] == [100.0] * jobs


def test_asynchronous_metrics_wait_together_on_one_loop(sup: dspex.Supervisor, lm: FakeLM) -> None:
    """process: 32 are awaited at once, all in one thread."""
    arrived, threads = [], set()

    async def together(example: Any, pred: Any, trace: Any = None) -> bool:
        if trace is not None:
            return True
        arrived.append(1)
        threads.add(threading.get_ident())
        while len(arrived) % AT_ONCE:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return True

    best = dspex.optimize(program(sup, lm), ROWS[:AT_ONCE], metric=together, **SEARCH, timeout=90)
    assert best.score == 100.0 and len(arrived) % AT_ONCE == 0 and len(threads) == 1


def hangs_at_3(example: Any, pred: Any, trace: Any = None) -> bool:
    if example.question == "q3":
        time.sleep(3600)
    return True


async def blocks_at_3(example: Any, pred: Any, trace: Any = None) -> bool:
    return hangs_at_3(example, pred)


async def waits_at_3(example: Any, pred: Any, trace: Any = None) -> bool:
    if example.question == "q3":
        await asyncio.sleep(3600)
    return True


HANGING = [hangs_at_3, blocks_at_3, waits_at_3, f"{__name__}:hangs_at_3", f"{__name__}:waits_at_3"]


@pytest.mark.parametrize("metric", HANGING)
def test_a_job_ends_where_its_metric_hangs_and_says_at_which_example(
    sup: dspex.Supervisor, lm: FakeLM, metric: Any
) -> None:
    """process: a typed error with the limit, and a worker that serves the next job."""
    job = dspex.optimize(program(sup, lm), ROWS[:8], optimizer="labeled", metric=metric, metric_timeout=1.0, wait=False)
    with pytest.raises(MetricTimeout, match=r"_at_3 did not score trainset\[3\] within 1 s") as found:
        job.result(timeout=60)
    assert (found.value.limit, job.state) == (1.0, "failed")
    assert any(event.kind == "failed" and found.value.example in event.facts["message"] for event in job.events())
    calm = dspex.optimize(program(sup, lm), ROWS[:2], optimizer="labeled", metric=metric, metric_timeout=5.0)
    assert calm.score == 100.0


def test_a_metric_that_hangs_holds_up_no_other_job(sup: dspex.Supervisor, lm: FakeLM) -> None:
    """process: all of a job's metrics hang, and block their loop; another job of the pool, and a call, are answered."""
    hold, arrived = threading.Event(), []

    def hang(example: Any, pred: Any, trace: Any = None) -> bool:
        arrived.append(1)
        return hold.wait(120)

    async def block(example: Any, pred: Any, trace: Any = None) -> bool:
        return hang(example, pred)

    async def calm(example: Any, pred: Any, trace: Any = None) -> bool:
        return True

    for stuck, most in ((hang, AT_ONCE), (block, 1)):
        arrived.clear()
        job = dspex.optimize(program(sup, lm), ROWS[:AT_ONCE], metric=stuck, **SEARCH, wait=False)
        eventually(lambda most=most: len(arrived) == most, what="the metrics hang")
        for metric in (calm, lambda e, p, trace=None: True):
            assert dspex.optimize(program(sup, lm), ROWS[:4], optimizer="labeled", metric=metric).score == 100.0
        assert program(sup, lm).using(implementation="python")(question="q").answer == "a"
        job.cancel()
        assert job.wait(30)
    hold.set()


def test_a_hanging_row_of_an_evaluation_is_that_rows_error(sup: dspex.Supervisor, lm: FakeLM) -> None:
    """process: the others are scored, more rows than hang are served, and nothing waits for the thread that is left."""
    for metric in HANGING:
        found = dspex.evaluate(program(sup, lm), ROWS[:12], metric, metric_timeout=1.0, num_threads=2)
        assert [row.index for row in found.errors] == [3] and found.score == 91.67
        error = found.errors[0].error
        assert isinstance(error, MetricTimeout) and (error.example, error.limit) == ("devset[3]", 1.0)


def test_what_a_metric_leaves_is_counted_and_refused_past_its_bound(
    lm: FakeLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """process: threads that hang are told with each error; at the bound no more are begun, and the error says so."""
    hold, before = threading.Event(), left_threads()
    monkeypatch.setattr(metric_limit, "LEFT_MOST", before + 2)

    def hangs(example: Any, pred: Any) -> bool:
        return hold.wait(600)

    def answer(question: str) -> dict[str, str]:
        return {"answer": "a"}

    with pytest.raises(TooManyToolsLeft) as found:
        dspex.evaluate(answer, ROWS[:4], hangs, metric_timeout=0.2, num_threads=1)
    assert [row.error.left for row in found.value.partial.rows] == [before + 1, before + 2]
    hold.set()
    eventually(lambda: left_threads() == before, what="threads whose metric ended")


def test_calls_beside_one_that_blocks_its_loop_begin_anew(lm: FakeLM) -> None:
    """process: those that had begun, too; each row but one is scored."""
    begun, hold = [], threading.Event()

    async def blocks_once(example: Any, pred: Any) -> bool:
        begun.append(example.question)
        if example.question == "q1" and begun.count("q1") == 1:
            hold.wait(600)
        await asyncio.sleep(0.2)
        return True

    async def answer(question: str) -> dict[str, str]:
        return {"answer": "a"}

    found = dspex.evaluate(answer, ROWS[:8], blocks_once, metric_timeout=2.0, num_threads=4)
    assert [row.index for row in found.errors] == [1] and isinstance(found.errors[0].error, MetricTimeout)
    hold.set()


@pytest.mark.parametrize("raised", ["StopIteration", "SystemExit(3)", "asyncio.CancelledError"])
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_what_would_end_a_task_is_a_rows_error(kind: str, raised: str) -> None:
    """unit: of any function, whatever it raises."""
    space: dict[str, Any] = {"asyncio": asyncio}
    exec(f"{kind} metric(e, p):\n    if e.question == 'q1': raise {raised}\n    return True", space)
    found = dspex.evaluate(lambda question: {"answer": "a"}, ROWS[:3], space["metric"])
    assert found.score == 66.67 and raised[:10].removeprefix("asyncio.") in str(found.errors[0].error)


EXITS = """
import time, dspex
rows = [{"question": f"q{n}", "answer": "a"} for n in range(3)]
def metric(e, p): return time.sleep(3600 if e.question == "q1" else 0) or True
def program(question): return {"answer": "a"}
print(dspex.evaluate(program, rows, metric, metric_timeout=0.2).score)
try: dspex.evaluate(lambda question: time.sleep(3600), rows, metric, timeout=0.2)
except dspex.errors.CallTimeout: print("ended")
"""


def test_nothing_that_hangs_keeps_a_process_from_its_end() -> None:
    """process: neither a metric nor a function that is evaluated."""
    done = subprocess.run([sys.executable, "-c", EXITS], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["66.67", "ended"]


def test_an_evaluation_whose_metric_only_hangs_is_no_score(sup: dspex.Supervisor, lm: FakeLM) -> None:
    """process: its error names the first of its causes."""
    with pytest.raises(EvaluationFailed, match=r"devset\[0\] within 0.2 s"):
        dspex.evaluate(program(sup, lm), ROWS[:6], lambda e, p: time.sleep(600), metric_timeout=0.2, num_threads=3)


@pytest.mark.parametrize("limit", [0, -1, float("nan"), "3s", True])
def test_a_limit_that_cannot_be_costs_nothing(sup: dspex.Supervisor, lm: FakeLM, limit: Any) -> None:
    """unit: refused before a model is asked."""
    with pytest.raises(SettingsError, match="metric_timeout"):
        dspex.evaluate(program(sup, lm), ROWS, hangs_at_3, metric_timeout=limit)
    with pytest.raises(SettingsError, match="metric_timeout"):
        dspex.optimize(program(sup, lm), ROWS, optimizer="labeled", metric=hangs_at_3, metric_timeout=limit)
    assert not lm.requests


def test_a_journal_goes_on_with_more_time(sup: dspex.Supervisor, lm: FakeLM, tmp_path: Path) -> None:
    """process: the answers that were paid are kept; so is the limit, unless another is given."""
    path, is_slow = tmp_path / "job.jsonl", [True]

    async def slow(example: Any, pred: Any, trace: Any = None) -> bool:
        if example.question == "q3" and is_slow[0]:
            await asyncio.sleep(3600)
        return True

    with pytest.raises(MetricTimeout):
        dspex.optimize(program(sup, lm), ROWS[:8], optimizer="labeled", metric=slow, metric_timeout=1, journal=path)
    with pytest.raises(MetricTimeout, match="within 1 s"):
        dspex.resume(path, metric=slow, lm=lm, supervisor=sup)
    is_slow[0], paid = False, len(lm.requests)
    assert dspex.resume(path, metric=slow, lm=lm, supervisor=sup, metric_timeout=30).score == 100.0
    assert paid <= 8 and len(lm.requests) > paid
