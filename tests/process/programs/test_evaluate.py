"""Process: `evaluate` and `aevaluate`, over everything that answers, and whatever ends them."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import dspex
from dspex.errors import (
    BudgetExceeded,
    CallTimeout,
    EvaluationFailed,
    InvalidInput,
    NotConfigured,
    PoolClosed,
    SettingsError,
    UnknownName,
    WorkerDied,
)
from dspex.scoped_defaults import context
from dspex.testing import FakeLM, FakeReply
from tests.support.paths import ROOT
from tests.support.waiting import eventually, late

ROWS = [{"question": f"q{number}", "answer": "a" if number % 2 else "b"} for number in range(12)]
SIG = "question -> answer"
BOTH = pytest.mark.parametrize("implementation", ["native", "python"])


def exact(example: Any, pred: Any, trace: Any = None) -> bool:
    return bool(example.answer == pred.answer)


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    pools = [
        dspex.PoolConfig(
            "dspy", size=3, concurrency=2, imports=[__name__, "dspy.evaluate"], env={"PYTHONPATH": str(ROOT)}
        ),
        dspex.PoolConfig("mipro", size=1),
    ]
    with dspex.Supervisor(pools=pools) as supervisor:
        supervisor.wait_ready()
        yield supervisor


@pytest.fixture
def lm() -> Iterator[FakeLM]:
    with FakeLM({"": {"answer": "a", "reasoning": "r"}}) as fake:
        yield fake


class Held:
    """A model that answers so many questions, and no other; `holds` says that it has begun not to."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._asked = 0
        self.holds = threading.Event()

    def __call__(self, messages: Any) -> Any:
        self._asked += 1
        if self._asked <= self._first:
            return {"answer": "a"}
        self.holds.set()
        return FakeReply(hang=True)


@pytest.fixture
def held() -> Iterator[tuple[Held, FakeLM]]:
    script = Held(4)
    with FakeLM(script) as fake:
        yield script, fake


# -- what is evaluated -----------------------------------------------------------------------------------------------


@BOTH
def test_rows_are_calls_of_the_programs_own_route(sup: dspex.Supervisor, lm: FakeLM, implementation: Any) -> None:
    """process: natively here, or over all workers of the pool; each row says what came of it."""
    seen: list[dict[str, Any]] = []
    program = dspex.predictor("predict", SIG, lm=lm, supervisor=sup, implementation=implementation)
    found = dspex.evaluate(program, ROWS, exact, on_progress=seen.append)
    assert found.score == 50.0 and not found.errors and found.is_complete and found.metric == "exact"
    assert [row.index for row in found.rows] == list(range(12)) and len(lm.requests) == 12
    assert all(row.prediction.answer == "a" and row.seconds > 0 for row in found.rows)
    assert [row.example.question for row in found.rows] == [row["question"] for row in ROWS]
    routes = {row.route for row in found.rows}
    wanted = {"native"} if implementation == "native" else {f"python:dspy/{number}" for number in range(3)}
    assert routes == wanted
    tokens = [used["total_tokens"] for row in found.rows for used in row.usage.values()]
    (whole,) = found.usage.values()
    assert len(tokens) == 12 and sum(tokens) == whole["total_tokens"]
    assert [report["done"] for report in seen] == list(range(1, 13)) and seen[-1]["score"] == 50.0
    assert {report["row"].index for report in seen} == set(range(12)) and seen[-1]["errors"] == 0


@BOTH
def test_awaited_it_is_the_same(sup: dspex.Supervisor, lm: FakeLM, implementation: Any) -> None:
    """process: on the caller's loop."""
    program = dspex.predictor("predict", SIG, lm=lm, supervisor=sup, implementation=implementation)
    found = asyncio.run(dspex.aevaluate(program, ROWS, exact))
    again = dspex.evaluate(program, ROWS, exact)
    assert found.scores == again.scores and found.compare(again).ties == 12


async def _answers(question: str) -> dict[str, str]:
    await asyncio.sleep(0)
    return {"answer": "a"}


def _of_example(example: Any) -> dspex.Prediction:
    return dspex.Prediction({"answer": "a" if example["question"] else ""})


class Runnable:
    inputs = ("question",)

    async def acall(self, **inputs: Any) -> dict[str, str]:
        return await _answers(**inputs)


SUBJECTS: dict[str, Callable[[FakeLM, dspex.Supervisor], Any]] = {
    "chain_of_thought": lambda lm, sup: dspex.chain_of_thought(SIG, lm=lm),
    "majority": lambda lm, sup: dspex.majority(SIG, n=2, lm=lm),
    "majority in workers": lambda lm, sup: dspex.majority(SIG, n=2, lm=lm, supervisor=sup, implementation="python"),
    "best_of_n": lambda lm, sup: dspex.best_of_n(SIG, reward_fn=lambda i, o: 1.0, N=2, threshold=1.0, lm=lm),
    "best_of_n in workers": lambda lm, sup: dspex.best_of_n(
        SIG, reward_fn=lambda i, o: 1.0, N=2, threshold=1.0, lm=lm, supervisor=sup, implementation="python"
    ),
    "assertions": lambda lm, sup: dspex.assertions(SIG, [lambda inputs, out: True], lm=lm),
    "rag": lambda lm, sup: dspex.rag(lambda query, k: ["passage"], SIG, lm=lm),
    "optimized": lambda lm, sup: dspex.Optimized(dspex.predictor("predict", SIG, lm=lm), 1.0, 0.5),
    "pipeline": lambda lm, sup: dspex.pipeline([dspex.predictor("predict", SIG, lm=lm)]),
    "runnable": lambda lm, sup: Runnable(),
    "function": lambda lm, sup: lambda question: {"answer": "a"},
    "async function": lambda lm, sup: _answers,
    "function of the example": lambda lm, sup: _of_example,
}


@pytest.mark.parametrize("name", SUBJECTS)
@pytest.mark.parametrize("metric", [exact, "exact_match"])
def test_anything_that_answers_is_evaluated(sup: dspex.Supervisor, lm: FakeLM, name: str, metric: Any) -> None:
    """process: programs of every kind, pipelines, functions."""
    found = dspex.evaluate(SUBJECTS[name](lm, sup), ROWS, metric)
    assert found.score == 50.0 and not found.errors, found.errors[:1]


def test_a_signature_is_a_program_that_predicts(sup: dspex.Supervisor, lm: FakeLM) -> None:
    """process: as a text and as a class, with the model of the open context and the supervisor that is named."""

    class QA(dspex.Signature):
        question: str = dspex.InputField()
        answer: str = dspex.OutputField()

    with pytest.raises(NotConfigured):
        dspex.evaluate(SIG, ROWS, exact)
    with context(lm=lm):
        for sig in (SIG, QA, dspex.signature(SIG)):
            assert dspex.evaluate(sig, ROWS, exact, supervisor=sup).score == 50.0


def test_the_named_supervisor_runs_programs_and_pipelines(sup: dspex.Supervisor, lm: FakeLM) -> None:
    """process: without one of its own, and without a default one."""
    program = dspex.predictor("predict", SIG, lm=lm, implementation="python")
    assert dspex.evaluate(program, ROWS, exact, supervisor=sup).score == 50.0
    flow = dspex.pipeline([program])
    assert dspex.evaluate(flow, ROWS, exact, supervisor=sup).score == 50.0
    assert dspex.defaults.running_supervisor() is None
    with pytest.raises(SettingsError, match="supervisor"):
        dspex.evaluate(Runnable(), ROWS, exact, supervisor=sup)


def test_a_function_gets_what_is_named_for_it(lm: FakeLM) -> None:
    """process: the inputs that are named, or the example; what fits neither is refused before it is called."""
    found = dspex.evaluate(lambda **given: {"answer": "a", "seen": given}, ROWS, exact, inputs=["question"])
    assert found.rows[3].prediction.seen == {"question": "q3"}
    text = dspex.evaluate(lambda question: "a", ROWS, lambda example, said: said == example.answer)
    assert text.score == 50.0 and text.rows[0].prediction == "a"
    for function in (lambda **given: {}, lambda question, other: {}):
        with pytest.raises(InvalidInput):
            dspex.evaluate(function, ROWS, exact)


# -- call options ----------------------------------------------------------------------------------------------------


@BOTH
def test_all_call_options_count(sup: dspex.Supervisor, lm: FakeLM, implementation: Any) -> None:
    """process: the requests are those of plain calls."""
    options: dict[str, Any] = {"adapter": "json", "config": {"temperature": 0.3, "top_p": 0.77}, "rollout_id": 5}
    program = dspex.predictor("predict", SIG, lm=lm, supervisor=sup, implementation=implementation, **options)
    dspex.evaluate(program, ROWS[:1], exact)
    program(question="q0")
    evaluated, called = lm.requests
    assert evaluated.raw == called.raw and (called.body["temperature"], called.body["top_p"]) == (0.3, 0.77)
    assert "JSON object" in called.body["messages"][0]["content"]


@BOTH
def test_a_programs_own_timeout_bounds_each_row(sup: dspex.Supervisor, implementation: Any) -> None:
    """process: and only the row that takes longer fails."""
    with FakeLM(lambda messages: FakeReply(hang=True) if "q5" in str(messages) else {"answer": "a"}) as lm:
        program = dspex.predictor("predict", SIG, lm=lm, supervisor=sup, implementation=implementation, timeout=4.0)
        found = dspex.evaluate(program, ROWS, exact)
    assert [row.index for row in found.errors] == [5] and found.rows[4].error is None
    assert isinstance(found.errors[0].error, TimeoutError)


def test_the_pools_deadline_is_none_of_an_evaluations() -> None:
    """process: a pool that allows its calls half a second lets a row take longer."""
    slow = FakeLM(lambda messages: {"answer": "a"}, latency=1.5)
    with slow as lm, dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1, call_timeout=0.5)]) as own:
        own.wait_ready()
        program = dspex.predictor("predict", SIG, lm=lm, supervisor=own, implementation="python")
        assert dspex.evaluate(program, ROWS[:2], exact).score == 50.0
        with pytest.raises(CallTimeout):
            program(question="another")


@BOTH
def test_num_threads_bounds_the_rows_that_run_at_once(sup: dspex.Supervisor, implementation: Any) -> None:
    """process: a model that never answers is asked so many times and no more."""
    with FakeLM(lambda messages: FakeReply(hang=True)) as lm:
        program = dspex.predictor("predict", SIG, lm=lm, supervisor=sup, implementation=implementation)

        def evaluated(seconds: float) -> None:
            lm.requests.clear()
            dspex.evaluate(program, ROWS, exact, num_threads=5, timeout=seconds)

        late(evaluated, lambda: len(lm.requests) >= 5)
        assert len(lm.requests) == 5


# -- errors ----------------------------------------------------------------------------------------------------------


@BOTH
def test_a_row_that_fails_is_a_row_with_an_error(sup: dspex.Supervisor, implementation: Any) -> None:
    """process: the program's error, or the metric's; the others have their scores."""

    def answer(messages: Any) -> Any:
        return FakeReply(status=500) if "q3" in str(messages) else {"answer": "a"}

    def picky(example: Any, pred: Any) -> bool:
        if example.question == "q4":
            raise ValueError("not this one")
        return exact(example, pred)

    with FakeLM(answer, retries=0) as lm:
        program = dspex.predictor("predict", SIG, lm=lm, supervisor=sup, implementation=implementation)
        found = dspex.evaluate(program, ROWS, picky)
    assert [row.index for row in found.errors] == [3, 4] and found.score == round(100 * 5 / 12, 2)
    ours, theirs = (row for row in found.errors)
    assert type(ours.error).__name__ == "LMServerError" and ours.prediction is None
    assert isinstance(theirs.error, ValueError) and theirs.prediction.answer == "a" and theirs.score == 0.0


def _broken(example: Any, pred: Any) -> float:
    raise ValueError("the metric is broken")


BROKEN = [
    _broken,
    lambda example, pred: None,
    lambda example, pred: "1.0",
    lambda example, pred: math.nan,
    lambda example, pred: {"scores": 1},
    lambda example, pred: pred.anwser,
    f"{__name__}:broken_there",
]


def broken_there(example: Any, pred: Any) -> float:
    return math.nan


@pytest.mark.parametrize("metric", BROKEN)
def test_a_metric_that_scores_no_row_is_an_error(sup: dspex.Supervisor, lm: FakeLM, metric: Any) -> None:
    """process: which names the metric and its first error, and keeps what was paid."""
    program = dspex.predictor("predict", SIG, lm=lm, supervisor=sup)
    with pytest.raises(EvaluationFailed, match="failed on all 12 rows") as failed:
        dspex.evaluate(program, ROWS, metric)
    error = failed.value
    name = metric if isinstance(metric, str) else metric.__name__
    assert name in error.metric and name in str(error) and error.failed == 12
    assert error.__cause__ is error.partial.rows[0].error and type(error.__cause__).__name__ in str(error)
    assert [row.prediction.answer for row in error.partial.rows] == ["a"] * 12


def test_a_program_that_answers_no_row_is_an_error_too(sup: dspex.Supervisor) -> None:
    """process: 0.0 would say that its answers were wrong."""
    failing = pytest.raises(EvaluationFailed, match="the program failed on all 12")
    with FakeLM(lambda messages: FakeReply(status=401), retries=0) as lm, failing as failed:
        dspex.evaluate(dspex.predictor("predict", SIG, lm=lm, supervisor=sup), ROWS, exact)
    assert "LMAuthError" in str(failed.value)


def test_max_errors_ends_it_early(sup: dspex.Supervisor, lm: FakeLM) -> None:
    """process: at so many failed rows, as in DSPy."""
    program = dspex.predictor("predict", SIG, lm=lm, supervisor=sup)
    with pytest.raises(EvaluationFailed, match="max_errors is 3") as failed:
        dspex.evaluate(program, ROWS, _broken, max_errors=3, num_threads=1)
    assert len(failed.value.partial) == 3 == len(lm.requests) and failed.value.partial.total == 12
    assert dspex.evaluate(program, ROWS, exact, max_errors=1).score == 50.0


REFUSED: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"devset": []}, InvalidInput),
    ({"devset": [{"answer": "a"}], "inputs": ["question"]}, InvalidInput),
    ({"devset": [{"answer": "a"}]}, InvalidInput),
    ({"devset": [*ROWS, {"question": 3, "unknown": 1}], "inputs": ["question", "unknown"]}, InvalidInput),
    ({"devset": [{"question": "q", "anwser": "a"}], "metric": "exact_match"}, InvalidInput),
    ({"metric": "exactly"}, UnknownName),
    ({"metric": f"{__name__}:nobody"}, UnknownName),
    ({"metric": f"{__name__}:of_one"}, SettingsError),
    ({"metric": lambda example: 1.0}, SettingsError),
    ({"metric": None}, SettingsError),
    ({"metric": ["f1"]}, SettingsError),
    ({"num_threads": 0}, InvalidInput),
    ({"num_threads": 1.5}, InvalidInput),
    ({"max_errors": -1}, InvalidInput),
    ({"timeout": "3s"}, SettingsError),
]


def of_one(example: Any) -> float:
    return 1.0


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_what_cannot_be_evaluated_costs_nothing(sup: dspex.Supervisor, lm: FakeLM, case: int) -> None:
    """process: also awaited."""
    changed, kind = REFUSED[case]
    given: dict[str, Any] = {"devset": ROWS, "metric": exact, **changed}
    program = dspex.predictor("predict", SIG, lm=lm, supervisor=sup)
    expected = (kind, InvalidInput)  # a worker says InvalidInput of a function that it imports
    with pytest.raises(expected):
        dspex.evaluate(program, **given)
    with pytest.raises(expected):
        asyncio.run(dspex.aevaluate(program, **given))
    assert not lm.requests


# -- what ends it ----------------------------------------------------------------------------------------------------


def _asked(held: tuple[Held, FakeLM], sup: dspex.Supervisor, implementation: Any) -> Any:
    return dspex.predictor("predict", SIG, lm=held[1], supervisor=sup, implementation=implementation)


@BOTH
def test_a_timeout_keeps_what_was_done(sup: dspex.Supervisor, held: Any, implementation: Any) -> None:
    """process: the rows that were answered are in the error."""
    with pytest.raises(CallTimeout) as ended:
        dspex.evaluate(_asked(held, sup, implementation), ROWS, exact, num_threads=2, timeout=2.0)
    partial = ended.value.partial
    assert len(partial) == 4 and partial.total == 12 and not partial.is_complete and partial.usage


@BOTH
def test_ctrl_c_cancels_what_runs_and_keeps_what_was_done(
    sup: dspex.Supervisor, held: Any, implementation: Any
) -> None:
    """process: at once, though the model still holds its answers."""
    script, fake = held
    reports: list[Any] = []

    def interrupt() -> None:
        eventually(lambda: script.holds.is_set() and len(reports) == 4)
        os.kill(os.getpid(), signal.SIGINT)

    waiter = threading.Thread(target=interrupt)
    waiter.start()
    with pytest.raises(KeyboardInterrupt) as ended:
        dspex.evaluate(_asked(held, sup, implementation), ROWS, exact, num_threads=1, on_progress=reports.append)
    waiter.join()
    assert len(ended.value.partial) == 4 and len(fake.requests) == 5 and len(reports) == 4  # type: ignore[attr-defined]
    assert not [one for one in threading.enumerate() if one.name.startswith("dspex-evaluate-loop")]


@BOTH
def test_a_cancelled_task_keeps_what_was_done(sup: dspex.Supervisor, held: Any, implementation: Any) -> None:
    """process: and its rows are cancelled."""
    script, fake = held

    async def cancelled() -> Any:
        task = asyncio.create_task(dspex.aevaluate(_asked(held, sup, implementation), ROWS, exact, num_threads=1))
        await asyncio.to_thread(script.holds.wait, 20)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError as error:
            return error.partial  # type: ignore[attr-defined]

    partial = asyncio.run(cancelled())
    assert len(partial) == 4 and len(fake.requests) == 5


@BOTH
def test_a_spent_budget_ends_it_and_keeps_what_was_paid(sup: dspex.Supervisor, lm: FakeLM, implementation: Any) -> None:
    """process: no other row is tried."""
    program = dspex.predictor("predict", SIG, lm=lm, supervisor=sup, implementation=implementation)
    with dspex.Account("mine", budget_tokens=1) as account, pytest.raises(BudgetExceeded) as ended:
        dspex.evaluate(program, ROWS, exact, num_threads=1)
    assert len(ended.value.partial) == 1 == len(lm.requests) and account.requests == 1
    assert ended.value.partial.rows[0].prediction.answer == "a"


def test_an_error_of_on_progress_ends_it(sup: dspex.Supervisor, lm: FakeLM) -> None:
    """process: with what was done."""

    def report(facts: dict[str, Any]) -> None:
        if facts["done"] == 3:
            raise RuntimeError("enough")

    program = dspex.predictor("predict", SIG, lm=lm, supervisor=sup)
    with pytest.raises(RuntimeError, match="enough") as ended:
        dspex.evaluate(program, ROWS, exact, num_threads=1, on_progress=report)
    assert len(ended.value.partial) >= 3  # type: ignore[attr-defined]


def test_a_stopped_supervisor_ends_it(lm: FakeLM) -> None:
    """process: no other row can be asked."""
    own = dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)])
    own.start()
    program = dspex.predictor("predict", SIG, lm=lm, supervisor=own, implementation="python")
    with pytest.raises(PoolClosed) as ended:
        dspex.evaluate(
            program, ROWS, exact, num_threads=1, on_progress=lambda facts: own.stop() if facts["done"] == 2 else None
        )
    assert 2 <= len(ended.value.partial) < 12


def dying(example: Any, pred: Any) -> float:
    if example.question == "q3":
        os._exit(9)
    return float(example.answer == pred.answer)


def test_a_workers_death_is_the_rows_error(sup: dspex.Supervisor, lm: FakeLM) -> None:
    """process: here that of the one which scored it; the others go on in its successor."""
    program = dspex.predictor("predict", SIG, lm=lm, supervisor=sup)
    found = dspex.evaluate(program, ROWS, f"{__name__}:dying", num_threads=1)
    assert [row.index for row in found.errors] == [3] and isinstance(found.errors[0].error, WorkerDied)
    assert found.errors[0].prediction.answer == "a"


def judged(example: Any, pred: Any, trace: Any = None) -> float:
    """A metric that asks the program's language model, as SemanticF1 does."""
    import dspy

    said = dspy.Predict("question, said -> verdict")(question=example.question, said=pred.answer).verdict
    return float(said == "yes" and trace is None)


@BOTH
def test_a_metric_of_the_workers_asks_the_programs_model(sup: dspex.Supervisor, implementation: Any) -> None:
    """process: and what it asked is part of what the evaluation used."""
    with FakeLM({"": {"answer": "a", "verdict": "yes"}}) as lm:
        program = dspex.predictor("predict", SIG, lm=lm, supervisor=sup, implementation=implementation)
        found = dspex.evaluate(program, ROWS, f"{__name__}:judged")
        assert found.score == 100.0 and len(lm.requests) == 24
    rows = sum(used["total_tokens"] for row in found.rows for used in row.usage.values())
    (whole,) = found.usage.values()
    assert whole["total_tokens"] > rows


def test_a_module_of_dspys_is_a_metric_by_its_path(sup: dspex.Supervisor) -> None:
    """process: SemanticF1 is made where it runs."""
    rows = [{"question": "q", "response": "a b"}]
    with FakeLM({"": {"response": "a", "reasoning": "r", "precision": "1.0", "recall": "0.5"}}) as lm:
        program = dspex.predictor("predict", "question -> response", lm=lm, supervisor=sup)
        assert dspex.evaluate(program, rows, "dspy.evaluate:SemanticF1").score == 66.67


# -- own modules -----------------------------------------------------------------------------------------------------

OWN = "tests.support.programs.own_programs"
HOPS = {"question": "Whose?", "answer": "me"}


def _hopping(messages: Any) -> dict[str, str]:
    return {"reasoning": "r", "query": "q", "answer": "me"}


@pytest.mark.parametrize("is_awaited", [False, True])
def test_an_own_module_is_evaluated_as_it_is(sup: dspex.Supervisor, is_awaited: bool) -> None:
    """process: by its import path, over all workers; an input that it may do without is given where it is named."""
    rows = [{**HOPS, "question": f"Whose is {number}?", "extra": "!"} for number in range(12)]
    with FakeLM(_hopping) as lm:
        qa = dspex.module(f"{OWN}:MultiHop", hops=1, lm=lm, supervisor=sup)
        found = asyncio.run(dspex.aevaluate(qa, rows, exact)) if is_awaited else dspex.evaluate(qa, rows, exact)
        assert found.score == 100.0 and not any("!" in str(request.body) for request in lm.requests)
        assert len(lm.requests) == 24 and {row.route for row in found.rows} == {f"python:dspy/{n}" for n in range(3)}
        assert found.rows[0].prediction.queries == ["q"] and len(found.rows[0].usage) == 1
        dspex.evaluate(qa, rows[:1], exact, inputs=["question", "extra"])
        assert "Whose is 0?!" in str(lm.requests[-1].body)


def test_an_evaluation_calls_forward_and_an_awaited_one_aforward(sup: dspex.Supervisor) -> None:
    """process: as calls do; what is returned is no prediction, and goes to the metric as it is."""
    both = dspex.module(f"{OWN}:Both", supervisor=sup)
    rows = [{"expected": "forward"}]
    assert dspex.evaluate(both, rows, lambda example, said: said == example.expected, inputs=[]).score == 100.0
    found = asyncio.run(dspex.aevaluate(both, rows, lambda example, said: said == "aforward", inputs=[]))
    assert found.score == 100.0 and found.rows[0].prediction == "aforward"


def test_a_pipeline_that_cannot_know_its_inputs_is_told_them() -> None:
    """unit: it begins with a module of the user's; refused before anything runs, with the way out."""
    pipeline = dspex.pipeline([dspex.python("dspy:Predict")])
    with pytest.raises(InvalidInput, match="inputs="):
        dspex.evaluate(pipeline, [{"question": "a", "answer": "b"}], "exact_match")
