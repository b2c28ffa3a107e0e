"""Process: metrics of the host with parameters of their own, called back from real workers."""

from __future__ import annotations

import asyncio
import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import dspex
from dspex.errors import SettingsError
from dspex.testing import FakeLM
from tests.support.paths import ROOT

ROWS = [{"question": f"q{number}", "answer": "a" if number % 2 else "b"} for number in range(6)]


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    pools = [
        dspex.PoolConfig("dspy", size=1, imports=["dspy.evaluate", __name__], env={"PYTHONPATH": str(ROOT)}),
        dspex.PoolConfig("mipro", size=1, imports=[__name__], env={"PYTHONPATH": str(ROOT)}),
    ]
    with dspex.Supervisor(pools=pools) as supervisor:
        supervisor.wait_ready()
        yield supervisor


@pytest.fixture
def lm() -> Iterator[FakeLM]:
    with FakeLM(lambda messages: {"answer": "a"}) as fake:
        yield fake


def exact(example: Any, pred: Any, trace: Any = None, frac: float = 1.0) -> bool:
    """As `dspy.evaluate.answer_exact_match`: a fourth parameter that is no `pred_name`."""
    return float(example.answer == pred.answer) >= frac


def graded(example: Any, pred: Any, weight: float = 2.0) -> float:
    return float(example.answer == pred.answer) * weight / 2


class Strict:
    def __call__(self, example: Any, pred: Any, *, trace: Any = None, floor: float = 0.0) -> float:
        return max(floor, float(example.answer == pred.answer))


METRICS = [exact, functools.partial(exact, frac=0.7), graded, Strict(), lambda e, p, *rest: e.answer == p.answer]


@pytest.mark.parametrize("metric", METRICS)
def test_evaluate_scores_with_the_metrics_own_defaults(sup: dspex.Supervisor, lm: FakeLM, metric: Any) -> None:
    """collaboration: no row fails, and half of them are right."""
    found = dspex.evaluate(dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup), ROWS, metric)
    assert found.score == 50.0 and not found.errors


def test_dspys_own_metric_scores_as_in_dspy(sup: dspex.Supervisor, lm: FakeLM) -> None:
    """parity: answer_exact_match given as a function and by import path, and plain DSPy in a process of its own."""
    code = (
        "import inspect, json, sys, dspy\n"
        "from dspy.evaluate import answer_exact_match as metric\n"
        "rows = [dspy.Example(**row).with_inputs('question') for row in json.loads(sys.argv[1])]\n"
        "class Same(dspy.Module):\n"
        "    def forward(self, question): return dspy.Prediction(answer='a')\n"
        "print(json.dumps(dspy.Evaluate(devset=rows, metric=metric, num_threads=1)(Same()).score))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, json.dumps(ROWS)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup)
    theirs = json.loads(done.stdout.splitlines()[-1])
    for metric in (exact, "dspy.evaluate:answer_exact_match"):
        assert dspex.evaluate(program, ROWS, metric).score == theirs == 50.0


@pytest.mark.parametrize("metric", [exact, graded, Strict()])
def test_bootstrap_collects_demonstrations_with_such_a_metric(sup: dspex.Supervisor, lm: FakeLM, metric: Any) -> None:
    """collaboration: while demonstrations are collected, only a trace is added."""
    program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup)
    best = dspex.optimize(program, ROWS, optimizer="bootstrap", metric=metric, max_labeled_demos=0)
    assert best.errors["metric"] == 0 and best.score == 50.0
    assert {demo["answer"] for demo in best.program.state["demos"]} == {"a"}


def idiomatic(example: Any, pred: Any, trace: Any = None) -> float:
    """As DSPy's pages write metrics: examples and predictions in DSPy's words, and steps out of the trace."""
    assert example.inputs().toDict().keys() == {"question", "route"} and example.labels().keys() == {"answer"}
    assert example.route == "by field" and "route" in example and example.get("none", 1) == 1
    assert pred.toDict() == {"answer": "a"}
    if trace is not None:
        asked = [example.question, *(outputs.answer for *_, outputs in trace if "answer" in outputs)]
        assert asked == [example.question, "a"] and trace[0][1]["question"] == example.question
    return float(example.answer == pred.answer)


@pytest.mark.parametrize("optimizer", ["bootstrap", "labeled"])
def test_dspys_idioms_work_in_metrics_of_the_host(sup: dspex.Supervisor, lm: FakeLM, optimizer: str) -> None:
    """collaboration: also while demonstrations are collected; a field may be called as a prediction's attribute."""
    rows = [{**row, "route": "by field"} for row in ROWS]
    program = dspex.predictor("predict", "question, route -> answer", lm=lm, supervisor=sup)
    best = dspex.optimize(program, rows, optimizer=optimizer, metric=idiomatic)
    assert best.errors["metric"] == 0 and best.score == 50.0 and best.program.state["demos"]


@pytest.mark.parametrize("is_gepas_form", [True, False])
def test_gepa_tells_a_metric_about_the_predictor_only_where_it_asks(
    sup: dspex.Supervisor, lm: FakeLM, is_gepas_form: bool
) -> None:
    """collaboration: a metric with five parameters gets them all, one with a fourth of its own keeps that."""
    seen: list[tuple[Any, Any]] = []

    def asking(gold: Any, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
        seen.append((pred_name, pred_trace))
        return {"score": float(gold.answer == pred.answer), "feedback": f"about {pred_name}"}

    program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup)
    options = {"max_metric_calls": 20, "reflection_minibatch_size": 2}
    metric = asking if is_gepas_form else exact
    best = dspex.optimize(program, ROWS, optimizer="gepa", metric=metric, **options)
    assert best.errors["metric"] == 0 and best.score == 50.0
    if is_gepas_form:
        ((predictor, inputs, outputs),) = next(trace for name, trace in seen if name is not None)
        assert predictor.name == "self" and predictor.signature.output_fields.keys() == {"answer"}
        assert inputs["question"].startswith("q") and outputs.answer == "a"
        assert {name for name, _ in seen} == {None, "self"}


@pytest.mark.parametrize("metric", [lambda example: 1.0, lambda e, p, trace, mine: 1.0, Strict])
def test_a_metric_that_cannot_be_called_costs_nothing(sup: dspex.Supervisor, lm: FakeLM, metric: Any) -> None:
    """collaboration: evaluate and optimize refuse it before a request is made."""
    program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup)
    for start in (dspex.evaluate, functools.partial(dspex.optimize, optimizer="labeled")):
        with pytest.raises(SettingsError) as refused:
            start(program, ROWS, metric=metric)
        assert refused.value.key == "metric"
    assert not lm.requests


async def late(example: Any, pred: Any, trace: Any = None) -> float:
    await asyncio.sleep(0)
    return float(example.answer == pred.answer)


def wrapped(*given: Any) -> Any:
    """A decorator's wrapper, which does not look asynchronous; imported by workers too."""
    return late(*given)


class Judging:
    async def __call__(self, example: Any, pred: Any) -> dict[str, Any]:
        return {"score": await late(example, pred), "feedback": "as it is"}


LATE = [late, wrapped, Judging(), f"{__name__}:late", f"{__name__}:wrapped"]


@pytest.mark.parametrize("metric", LATE)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_an_asynchronous_metric_is_awaited(sup: dspex.Supervisor, lm: FakeLM, metric: Any) -> None:
    """collaboration: in evaluations, awaited or not, and by optimizers; here and in workers."""
    program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup)
    assert dspex.evaluate(program, ROWS, metric).score == 50.0
    assert asyncio.run(dspex.aevaluate(program, ROWS, metric)).score == 50.0
    best = dspex.optimize(program, ROWS, optimizer="bootstrap", metric=metric, max_labeled_demos=0)
    assert best.errors["metric"] == 0 and best.score == 50.0
    assert {demo["answer"] for demo in best.program.state["demos"]} == {"a"}


def endless(*given: Any) -> Any:
    return (0.5 for _ in given)


@pytest.mark.parametrize("metric", [endless, f"{__name__}:endless"])
@pytest.mark.parametrize("start", [dspex.evaluate, functools.partial(dspex.optimize, optimizer="bootstrap")])
def test_a_metric_that_gives_a_generator_ends_the_job_at_the_first_row(
    sup: dspex.Supervisor, lm: FakeLM, start: Any, metric: Any
) -> None:
    """collaboration: with one error that says why; only the rows that ran beside it were paid."""
    program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup)
    rows = [{"question": f"q{number} of {metric}", "answer": "a"} for number in range(60)]
    with pytest.raises(SettingsError, match="at once") as refused:
        start(program, rows, metric=metric)
    assert refused.value.key == "metric"
    assert len(lm.requests) < 45
