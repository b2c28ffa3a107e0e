"""Collaboration: an optimizer as a pipeline's step optimizes once for all runs, and then serves the winner (P8)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

import dspex
from dspex import Optimization
from dspex.errors import StepTimeout
from dspex.testing import FakeLM
from tests.support.waiting import eventually

TRAINSET = [{"question": f"q{i}?", "answer": "yes"} for i in range(4)]
OPTIONS: dict[str, Any] = {"num_candidates": 2, "num_trials": 1, "minibatch": False, "num_threads": 1}


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1), dspex.PoolConfig("mipro", size=1)]) as supervisor:
        supervisor.wait_ready()
        yield supervisor


def answer(messages: list[dict[str, Any]]) -> dict[str, str]:
    return {"answer": "yes", "proposed_instruction": "Say yes.", "observations": "o", "summary": "s"}


def step(metric: Any, **options: Any) -> Any:
    return dspex.python(
        "dspy.MIPROv2",
        signature="question -> answer",
        trainset=TRAINSET,
        metric=metric,
        name="best",
        **{**OPTIONS, **options},
    )


def test_concurrent_runs_share_one_optimization_and_later_runs_its_winner(sup: dspex.Supervisor) -> None:
    """P8: single flight, kept by content."""
    reports: list[str] = []
    with FakeLM(answer) as lm:
        pipeline = dspex.pipeline([step("exact_match")])
        results: list[Any] = []

        def run() -> None:
            for event in pipeline.stream({"question": "now?"}, supervisor=sup, lm=lm):
                if event.kind == "step_progressed":
                    reports.append(str(event.facts["stage"]))
                elif event.kind == "run_finished":
                    results.append(event.result)

        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [result["answer"] for result in results] == ["yes"] * 3
        assert sup.stats()["mipro"]["counts"]["answered"] == 1, "one optimization for three runs"
        assert "search" in reports
        again = dspex.pipeline([step("exact_match")]).run({"question": "later?"}, supervisor=sup, lm=lm)
        assert again.steps["best"].extra["score"] == 100.0
        assert sup.stats()["mipro"]["counts"]["answered"] == 1, "an equal step serves the kept winner"


@pytest.mark.parametrize("is_awaited", [False, True])
def test_an_optimization_that_nobody_waits_for_ends(sup: dspex.Supervisor, is_awaited: bool) -> None:
    """P8: the only waiter's time is up: nothing is paid from then on, and the worker is free."""

    def metric(example: Any, prediction: Any, trace: Any = None) -> bool:
        return bool(example["answer"] == prediction["answer"])

    with FakeLM(answer, latency=0.1) as lm:
        pipeline = dspex.pipeline([step(metric, num_trials=30)])
        with pytest.raises(dspex.PipelineError) as caught:
            if is_awaited:
                asyncio.run(pipeline.arun({"question": "soon?"}, supervisor=sup, lm=lm, timeout=0.5))
            else:
                pipeline.run({"question": "soon?"}, supervisor=sup, lm=lm, timeout=0.5)
        assert isinstance(caught.value.causes[0], StepTimeout)
        eventually(lambda: sup.stats()["mipro"]["in_flight"] == 0)
        asked = len(lm.requests)
        with FakeLM(answer) as other:  # the worker serves another job, and asks nothing more for this one
            plain = dspex.pipeline([step("exact_match")]).run({"question": "now?"}, supervisor=sup, lm=other)
        assert plain["answer"] == "yes" and len(lm.requests) == asked


def test_an_optimization_goes_on_for_those_who_still_wait(sup: dspex.Supervisor) -> None:
    """P8: one of two leaves; the other gets the winner of the one optimization."""
    before = sup.stats()["mipro"]["counts"]["answered"]

    def metric(example: Any, prediction: Any, trace: Any = None) -> bool:
        return bool(example["answer"] == prediction["answer"])

    with FakeLM(answer, latency=0.05) as lm:
        pipeline = dspex.pipeline([step(metric)])

        async def both() -> Any:
            stays = asyncio.create_task(pipeline.arun({"question": "soon?"}, supervisor=sup, lm=lm))
            with pytest.raises(dspex.PipelineError):
                await pipeline.arun({"question": "now?"}, supervisor=sup, lm=lm, timeout=0.2)
            return await stays

        assert asyncio.run(both())["answer"] == "yes"
    assert sup.stats()["mipro"]["counts"]["answered"] == before + 1


def test_a_waiter_that_comes_back_optimizes_anew(sup: dspex.Supervisor) -> None:
    """P8: what the job had paid for, it had for nothing."""
    before = sup.stats()["mipro"]["counts"]["answered"]

    def metric(example: Any, prediction: Any, trace: Any = None) -> bool:
        return bool(example["answer"] == prediction["answer"])

    with FakeLM(answer, latency=0.05) as lm:
        pipeline = dspex.pipeline([step(metric)])

        async def leave_and_come_back() -> Any:
            with pytest.raises(dspex.PipelineError) as caught:
                await pipeline.arun({"question": "soon?"}, supervisor=sup, lm=lm, timeout=0.1)
            assert isinstance(caught.value.causes[0], StepTimeout)
            return await pipeline.arun({"question": "soon?"}, supervisor=sup, lm=lm)

        result = asyncio.run(leave_and_come_back())
    assert result["answer"] == "yes"
    assert sup.stats()["mipro"]["counts"]["answered"] == before + 1


def test_the_record_says_where_the_program_was_optimized_and_where_it_ran(sup: dspex.Supervisor) -> None:
    """collaboration: the winner runs natively; it was made in the optimizers' pool, and that took most of the time."""
    with FakeLM(answer, latency=0.01) as lm:
        pipeline = dspex.pipeline([step("answer_exact_match", num_trials=2)])
        first = pipeline.run({"question": "now?"}, supervisor=sup, lm=lm).steps["best"]
        second = asyncio.run(pipeline.arun({"question": "now?"}, supervisor=sup, lm=lm)).steps["best"]
    assert (first.route, first.worker) == ("native", "")
    made = first.optimized
    assert isinstance(made, Optimization)
    assert (made.optimizer, made.pool, made.worker, made.reused) == ("miprov2", "mipro", "mipro/0", False)
    assert (made.score, made.baseline_score) == (100.0, 100.0)
    assert 0.0 < made.seconds <= first.seconds
    assert second.optimized == replace(made, reused=True), "the same optimization, which this run did not wait for"


def test_a_winner_that_runs_in_a_worker_keeps_the_two_places_apart(sup: dspex.Supervisor) -> None:
    """collaboration: optimized in one pool, run in the other; the same where it stands in as a fallback."""
    with FakeLM(answer) as lm:
        best = step("exact_match", implementation="python")
        plain = dspex.pipeline([best]).run({"question": "now?"}, supervisor=sup, lm=lm).steps["best"]
        stood_in = dspex.pipeline([dspex.native(_fails, fallback=best)])
        instead = stood_in.run({"question": "now?"}, supervisor=sup, lm=lm).steps[0]
    assert plain.worker.startswith("dspy/")
    assert plain.optimized is not None
    assert plain.optimized.worker == "mipro/0"
    assert instead.status == "fell back"
    assert instead.optimized == replace(plain.optimized, reused=True)


def test_a_step_that_optimizes_nothing_has_no_such_record(sup: dspex.Supervisor) -> None:
    """collaboration: `optimized` is None for native steps and plain modules."""
    with FakeLM(answer) as lm:
        steps = [dspex.native("question -> answer"), dspex.python("dspy.Predict", signature="question -> answer")]
        result = dspex.pipeline(steps).run({"question": "now?"}, supervisor=sup, lm=lm)
    assert [record.optimized for record in result.steps] == [None, None]


def _fails(question: str) -> dict[str, str]:
    raise ValueError(question)
