"""Collaboration: an optimiser as a pipeline's step optimises once for all runs, and then serves the winner (P8)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import dspex
from dspex.errors import StepTimeout
from dspex.testing import FakeLM

TRAINSET = [{"question": f"q{i}?", "answer": "yes"} for i in range(4)]
OPTIONS: dict[str, Any] = {"num_candidates": 2, "num_trials": 1, "minibatch": False, "num_threads": 1}


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1), dspex.PoolConfig("mipro", size=1)]) as supervisor:
        supervisor.wait_ready()
        yield supervisor


def answer(messages: list[dict[str, Any]]) -> dict[str, str]:
    return {"answer": "yes", "proposed_instruction": "Say yes.", "observations": "o", "summary": "s"}


def step(metric: Any) -> Any:
    return dspex.python(
        "dspy.MIPROv2", signature="question -> answer", trainset=TRAINSET, metric=metric, name="best", **OPTIONS
    )


def test_concurrent_runs_share_one_optimisation_and_later_runs_its_winner(sup: dspex.Supervisor) -> None:
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
        assert sup.stats()["mipro"]["counts"]["answered"] == 1, "one optimisation for three runs"
        assert "search" in reports
        again = dspex.pipeline([step("exact_match")]).run({"question": "later?"}, supervisor=sup, lm=lm)
        assert again.steps["best"].extra["score"] == 100.0
        assert sup.stats()["mipro"]["counts"]["answered"] == 1, "an equal step serves the kept winner"


def test_a_waiter_that_leaves_does_not_end_the_optimisation(sup: dspex.Supervisor) -> None:
    """P8: one cancelled waiter does not cancel it."""
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
