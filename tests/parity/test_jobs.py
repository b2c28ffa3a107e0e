"""Parity: evaluations and optimizations beside DSPy's own, on one endpoint."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import dspex
from dspex.testing import FakeLM
from tests.support.paths import ROOT
from tests.support.programs import dspy_jobs, shared_metrics

METRICS = "tests.support.programs.shared_metrics"
ROWS = [{"question": f"q{number}", "answer": "a b" if number % 2 else "c"} for number in range(8)]
CONFIG = {"temperature": 0.3, "top_p": 0.9}


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    env = {"PYTHONPATH": str(ROOT)}
    pools = [
        dspex.PoolConfig("dspy", size=1, env=env, imports=[METRICS, "dspy.evaluate"]),
        dspex.PoolConfig("mipro", size=1, env=env, imports=[METRICS]),
    ]
    with dspex.Supervisor(pools=pools) as supervisor:
        supervisor.wait_ready()
        yield supervisor


@pytest.fixture
def lm() -> Iterator[FakeLM]:
    with FakeLM({"": {"answer": "a", "when": "2024-05-06"}}) as fake:
        yield fake


def dspys(lm: FakeLM, *jobs: dict[str, Any]) -> list[Any]:
    """What DSPy itself answers to the jobs."""
    shared = {"rows": ROWS, "inputs": ["question"], "signature": "question -> answer"}
    done = subprocess.run(
        [sys.executable, "-m", dspy_jobs.__name__, lm.api_base, lm.api_key or ""],
        cwd=ROOT, input=json.dumps([shared | job for job in jobs]), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parity
@pytest.mark.parametrize("name", ["exact", "with_own", "failing", "idiomatic"])
def test_rows_score_as_in_dspys_evaluate(sup: dspex.Supervisor, lm: FakeLM, name: str) -> None:
    """parity: natively, in workers, with the metric here and there."""
    (theirs,) = dspys(lm, {"metric": f"{METRICS}:{name}"})
    for implementation in ("native", "python"):
        how: Any = {"lm": lm, "supervisor": sup, "implementation": implementation}
        program = dspex.predictor("predict", "question -> answer", **how)
        for metric in (getattr(shared_metrics, name), f"{METRICS}:{name}"):
            found = dspex.evaluate(program, ROWS, metric)
            assert (found.score, found.scores) == (theirs["score"], theirs["scores"])


@pytest.mark.parity
def test_labels_stay_as_they_are_given(sup: dspex.Supervisor, lm: FakeLM) -> None:
    """parity: a date that a data set has as text is text to the metric, here, in workers and in DSPy."""
    rows = [{"question": f"q{number}", "when": "2024-05-06"} for number in range(4)]
    sig = dspex.signature("question -> when: date", custom_types={"date": datetime.date})
    program = dspex.predictor("predict", sig, lm=lm)
    for metric in (shared_metrics.labels_are_texts, f"{METRICS}:labels_are_texts"):
        assert dspex.evaluate(program, rows, metric, supervisor=sup).score == 100.0
        best = dspex.optimize(program, rows, optimizer="labeled", metric=metric, supervisor=sup)
        assert best.score == 100.0 and best.errors["metric"] == 0


@pytest.mark.parity
@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        ("bootstrap", "BootstrapFewShot", {"max_bootstrapped_demos": 2, "max_labeled_demos": 2}),
        ("bootstrap", "BootstrapFewShot", {"max_rounds": 3, "max_labeled_demos": 0, "max_bootstrapped_demos": 8}),
        ("random_search", "BootstrapFewShotWithRandomSearch", {"num_candidate_programs": 2, "max_labeled_demos": 3}),
    ],
)
def test_an_optimizer_sends_what_dspys_sends_with_the_programs_config(
    sup: dspex.Supervisor, ours: Any, theirs: str, options: dict[str, Any]
) -> None:
    """parity: of a program with a config, as of a dspy.Predict with it; besides, the program is scored at both ends."""
    job = {"metric": f"{METRICS}:idiomatic", "optimize": theirs, "options": options, "config": CONFIG}
    with FakeLM({"": {"answer": "a b"}}) as lm:
        (found,) = dspys(lm, job)
        sent = Counter(request.raw for request in lm.requests)
    with FakeLM({"": {"answer": "a b"}}) as lm:
        program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup, config=CONFIG)
        given: Any = {"keep_baseline": False, **options}
        best = dspex.optimize(program, ROWS, optimizer=ours, metric=shared_metrics.idiomatic, **given)
        mine = Counter(request.raw for request in lm.requests)
        assert all(json.loads(body)["top_p"] == 0.9 for body in mine)
        evaluated = dspex.evaluate(best, ROWS, shared_metrics.exact)
        assert evaluated.score == 50.0 and lm.requests[-1].body["temperature"] == 0.3
    assert sent <= mine and sum(mine.values()) == sum(sent.values()) + 2 * len(ROWS)
    assert [demo["question"] for demo in best.program.state["demos"]] == [demo["question"] for demo in found["demos"]]


BUILT_IN = [
    ("The Eiffel Tower!", "eiffel  tower"), ("the tower", "The Eiffel Tower"), ("Élan", "E\u0301lan"), ("", ""),
    ("a an the", ""), ("no", "yes"), ("It is, of course, Paris.", "paris"), ("paris", ["Rome", "Paris"]), ("3", 3),
    ("ﬁne", "fine"), ("naïve café", "NAIVE CAFE"), ("a-b c", "ab c"), ("x", []),
]  # fmt: skip


@pytest.mark.parity
@pytest.mark.parametrize("name", ["exact_match", "f1", "contains", "answer_exact_match"])
def test_built_in_metrics_score_here_as_in_workers(sup: dspex.Supervisor, name: str) -> None:
    """parity: DSPy's own comparisons run in workers, and their like in this process."""
    from dspex.services.built_in_metrics import built_in
    from dspex.types.example import Example

    metric = built_in({"name": name})
    for predicted, expected in BUILT_IN:
        arguments = {
            "metric": {"name": name}, "example": {"question": "q", "answer": expected}, "inputs": ["question"],
            "prediction": {"answer": predicted},
        }  # fmt: skip
        theirs = sup.call("dspy", "score", arguments)["score"]
        example = Example({"question": "q", "answer": expected}, ["question"])
        assert metric(example, dspex.Prediction({"answer": predicted})) == pytest.approx(theirs), (predicted, expected)


@pytest.mark.parity
def test_an_answer_in_a_passage_is_found_by_dspy(sup: dspex.Supervisor, lm: FakeLM) -> None:
    """parity: natively too, a worker scores `answer_passage_match`, whose tokens only DSPy has."""
    rows = [{"question": "q", "context": ["The Eiffel Tower, in Paris."], "answer": "eiffel tower"}]

    def looked_up(question: str) -> dict[str, Any]:
        return {"context": rows[0]["context"], "answer": "?"}

    assert dspex.evaluate(looked_up, rows, "answer_passage_match", supervisor=sup).score == 100.0


@pytest.mark.parity
def test_a_host_that_has_dspy_gives_its_objects() -> None:
    """parity: live modules, classes, signatures, examples, SemanticF1: see the script."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.programs.dspy_host"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done.stderr[-3000:]
