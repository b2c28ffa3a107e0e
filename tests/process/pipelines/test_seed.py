"""Collaboration: the seed's own snippets, in Python, on real pools and a scripted model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

import dspex
from dspex.testing import FakeLM


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    pools = [dspex.PoolConfig("dspy", size=2), dspex.PoolConfig("mipro", size=1)]
    with dspex.Supervisor(pools=pools) as supervisor:
        supervisor.wait_ready()
        yield supervisor


def scripted(answers: Mapping[str, dict[str, Any]]) -> FakeLM:
    """A model that answers by the output field that the prompt asks for first."""

    def answer(messages: list[dict[str, Any]]) -> Any:
        asked = messages[-1]["content"]
        for marker, value in answers.items():
            if marker in asked.rpartition("Respond with")[2]:
                return value
        return {"answer": "unsure"}

    return FakeLM(answer)


def test_simple_usage_needs_no_worker() -> None:
    """The seed: `signature = DSPex.signature(...)`, `DSPex.predict(signature, %{...})`."""
    with FakeLM([{"answer": "A framework."}]) as lm:
        signature = dspex.signature("question -> answer")
        result = dspex.predict(signature, {"question": "What is DSPy?"}, lm=lm)
    assert result.answer == "A framework."
    assert result.route == "native"


def test_advanced_pipeline_with_its_cache_step(sup: dspex.Supervisor) -> None:
    """The seed: a native signature step, a ChainOfThought step, and a cache step with ttl 3600."""
    answers = {"queries": {"queries": ["a", "b"]}, "reasoning": {"reasoning": "r", "answer": "42"}}
    with scripted(answers) as lm:
        pipeline = dspex.pipeline(
            [
                dspex.native(dspex.signature("question -> queries: list")),
                dspex.python("dspy.ChainOfThought", signature="queries -> answer"),
                dspex.cache_step(ttl=3600),
            ]
        )
        first = pipeline.run({"question": "Complex question"}, supervisor=sup, lm=lm)
        sent = len(lm.requests)
        second = pipeline.run({"question": "Complex question"}, supervisor=sup, lm=lm)
        assert first["answer"] == second["answer"] == "42"
        assert first.steps[1].route.startswith("python:dspy/")
        assert len(lm.requests) == sent, "the second run was served from the cache step"


def test_the_parallel_step_collects_native_and_python_branches(sup: dspex.Supervisor) -> None:
    """The seed: `{:parallel, [native, python, native]}`."""

    def vector_search(question: str) -> list[str]:
        return [f"document about {question}"]

    def web_search(question: str) -> list[str]:
        return [f"page about {question}"]

    with scripted({"answer": {"answer": "from a worker"}}) as lm:
        pipeline = dspex.pipeline(
            [
                dspex.parallel(
                    [
                        dspex.native(vector_search, into="documents"),
                        dspex.python("dspy.Predict", signature="question -> answer"),
                        dspex.native(web_search, into="pages"),
                    ],
                    into="evidence",
                )
            ]
        )
        result = pipeline.run({"question": "owls"}, supervisor=sup, lm=lm)
    documents, answer, pages = result["evidence"]
    assert documents == ["document about owls"]
    assert answer == "from a worker" or answer["answer"] == "from a worker"
    assert pages == ["page about owls"]


def test_optimize_with_a_metric_of_the_host(sup: dspex.Supervisor) -> None:
    """The seed: `DSPex.optimize(my_module, trainset, optimizer: :miprov2, metric: my_metric, num_candidates: 20)`."""
    seen: list[dict[str, Any]] = []

    def answer(messages: list[dict[str, Any]]) -> Any:
        text = str(messages)
        if "proposed_instruction" in messages[-1]["content"]:
            return {"proposed_instruction": "Answer with the capital of the country."}
        if "observations" in text or "summary" in text:
            return {"observations": "countries", "summary": "countries and capitals"}
        is_told = "capital of the country" in messages[0]["content"] or len(messages) > 2
        return {"answer": "Paris" if is_told else "no idea"}

    def my_metric(example: Any, prediction: Any, trace: Any = None) -> bool:
        return example.answer == prediction.answer

    trainset = [{"question": f"Capital of country {i}?", "answer": "Paris"} for i in range(8)]
    with FakeLM(answer) as lm:
        best = dspex.optimize(
            dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup),
            trainset,
            optimizer="miprov2",
            metric=my_metric,
            on_progress=seen.append,
            num_candidates=2,
            num_trials=2,
            minibatch=False,
            num_threads=1,
        )
        assert best.baseline_score == 0.0
        assert best.score == 100.0
        assert best(question="Capital of country 9?").answer == "Paris"
        assert best.program.decision.implementation == "native", str(best.program.decision)
    assert {report["stage"] for report in seen} >= {"baseline", "search"}
    assert not any(row["generation"] > 1 for row in sup.stats()["mipro"]["workers"]), "no worker was lost"
