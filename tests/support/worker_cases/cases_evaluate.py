"""Scoring: metrics, rows, threads."""

from __future__ import annotations

import json
import threading
from typing import Any

import dspy

from dspex_worker.bridge import Cancelled
from dspex_worker.failure import Failure
from dspex_worker.programs.code.user_imports import UserImports
from dspex_worker.programs.evaluating.scored_rows import EvaluatedRow, evaluate
from dspex_worker.programs.metrics.host_metrics import name_predictors
from dspex_worker.programs.metrics.metric_calls import metric_from, reward_from
from tests.support.worker_cases.parent import RECORD, chat, fails_with, parent, programs, spec

NONE = UserImports()
ROWS = [{"question": f"q{number}", "answer": str(number)} for number in range(8)]


def _echo(body: dict[str, Any]) -> Any:
    """An LM that knows all answers but those to q0 and q1, and fails at q2."""
    question = body["messages"][-1]["content"].split("\n")[1]
    if question == "q2":
        return Failure("LMServerError", "down", status=500, model=RECORD["model"])
    return chat(answer="wrong" if question in ("q0", "q1") else question[1:])


def _evaluated(metric: dict[str, Any], **extra: Any) -> tuple[list[Any], dict[str, Any]]:
    call = parent(_echo, **extra)
    return call.call(evaluate, programs(), call, spec(), ROWS, metric, RECORD, None, 4, ["question"])


def test_rows_keep_their_order_and_their_errors() -> None:
    """unit: score in percent, failed rows count as zero and say why, progress counts up."""
    chunks, value = _evaluated({"name": "exact_match"})
    assert value["score"] == 62.5 and [row["score"] for row in value["results"]] == [0, 0, 0, 1, 1, 1, 1, 1]
    assert value["results"][3]["outputs"] == {"answer": "3"}
    assert value["results"][2]["error"] == {"kind": "LMServerError", "message": "down"}
    assert [chunk["done"] for chunk in chunks] == list(range(1, 9)) and chunks[-1]["score"] == 62.5
    json.dumps(value)


def test_score_equals_dspys_evaluate() -> None:
    """parity: the same program, metric and examples."""
    call = parent(lambda body: chat(answer="1"))
    _, value = call.call(evaluate, programs(), call, spec(), ROWS, {"name": "exact_match"}, RECORD)
    examples = [dspy.Example(**row).with_inputs("question") for row in ROWS]

    def theirs() -> float:
        with programs().calling(call, RECORD, None, _call_usage()):
            score = dspy.Evaluate(devset=examples, metric=dspy.evaluate.answer_exact_match, num_threads=2)
            return float(score(dspy.Predict("question -> answer")).score)

    assert call.call(theirs) == value["score"] == 12.5


def _call_usage() -> Any:
    from dspex_worker.programs.calls.call_context import CallUsage

    return CallUsage()


def test_users_metrics_see_the_calls_context_in_every_thread() -> None:
    """unit: `mine.same` asserts it."""
    _, value = _evaluated({"import": "tests.support.user_code:same"})
    assert value["score"] == 62.5


def test_dspys_own_threads_find_the_call_too() -> None:
    """unit: dspy.Evaluate's pool has no contextvars; LM requests and imported metrics still belong to the call."""
    call = parent(lambda body: chat(answer="1"))
    metric = metric_from({"import": "tests.support.user_code:same"}, programs().imports)
    examples = [dspy.Example(**row).with_inputs("question") for row in ROWS]

    def run() -> float:
        with programs().calling(call, RECORD, None, _call_usage()):
            score = dspy.Evaluate(devset=examples, metric=metric, num_threads=4, max_errors=1)
            return float(score(dspy.Predict("question -> answer")).score)

    assert call.call(run) == 12.5 and len(call.requests) == 8


def test_metrics_in_the_parent_get_plain_data() -> None:
    """unit: example, prediction and whether a trace is collected."""
    seen = []

    def metric_call(sent: dict[str, Any]) -> Any:
        seen.append(sent)
        return sent["example"]["answer"] == sent["prediction"]["answer"]

    _, value = _evaluated({"parent": 7}, metric_call=metric_call)
    assert value["score"] == 62.5 and {one["id"] for one in seen} == {7} and len(seen) == 7
    assert not any(one["trace"] for one in seen)


def test_built_in_metrics() -> None:
    """unit: whole, partial, list-valued and typed comparisons; a bool while demonstrations are collected."""
    row = dspy.Example(q="x", answer="The Eiffel Tower", n=3).with_inputs("q")
    right, partial = dspy.Prediction(answer="eiffel tower!", n=3), dspy.Prediction(answer="the tower", n=4)
    by_name = {name: metric_from({"name": name, "field": "answer"}, NONE) for name in ("exact_match", "f1", "contains")}
    assert by_name["exact_match"](row, right) == 1.0 and by_name["exact_match"](row, partial) == 0.0
    assert round(by_name["f1"](row, partial), 3) == 0.667 and by_name["f1"](row, partial, []) is False
    assert by_name["contains"](row, dspy.Prediction(answer="It is the Eiffel Tower.")) == 1.0
    every = metric_from({"name": "exact_match"}, NONE)
    assert every(row, right) == 1.0 and every(row, dspy.Prediction(answer="eiffel tower", n=4)) == 0.5
    many = dspy.Example(q="x", answer=["a", "b"]).with_inputs("q")
    assert metric_from({"name": "answer_exact_match"}, NONE)(many, dspy.Prediction(answer="B")) == 1.0
    passage = metric_from({"name": "answer_passage_match"}, NONE)
    assert passage(row, dspy.Prediction(context=["the eiffel tower is high"]))
    with fails_with("UnknownName"):
        metric_from({"name": "exactly"}, NONE)
    with fails_with("UnknownName"):
        metric_from({"import": "os:getpid"}, NONE)
    with fails_with("InvalidInput"):
        metric_from({}, NONE)
    with fails_with("InvalidInput"):
        every(row, dspy.Prediction(other=1))


def _dspys_score(call: Any, metric: Any) -> float:
    examples = [dspy.Example(**row).with_inputs("question") for row in ROWS]

    def theirs() -> float:
        with programs().calling(call, RECORD, None, _call_usage()):
            scored = dspy.Evaluate(devset=examples, metric=metric, num_threads=2, max_errors=100)
            return float(scored(dspy.Predict("question -> answer")).score)

    found: float = call.call(theirs)
    return found


def test_metrics_with_parameters_of_their_own_score_as_in_dspy() -> None:
    """parity: by import path, DSPy's own, partials, modules like SemanticF1, and metrics of GEPA's form."""
    imports = UserImports(frozenset({"tests.support.user_code", "dspy.evaluate"}))
    for path in (
        *(
            "dspy.evaluate:answer_exact_match",
            "tests.support.user_code:at_least",
            "tests.support.user_code:judge",
            "tests.support.user_code:partly",
        ),
        *("tests.support.user_code:keyworded", "tests.support.user_code:about"),
    ):
        call = parent(lambda body: chat(answer="1"))
        ours, theirs = metric_from({"import": path}, imports), imports.resolve(path, "metric")

        def score(example: Any, pred: Any, metric: Any = ours) -> Any:
            return getattr(found := metric(example, pred), "score", found)

        def plain(example: Any, pred: Any, metric: Any = theirs) -> Any:
            return getattr(found := metric(example, pred), "score", found)

        assert _dspys_score(call, score) == _dspys_score(call, plain) == 12.5, path


def test_metrics_that_cannot_be_called_are_refused_before_anything_is_paid() -> None:
    """unit: by evaluate, and as a reward."""
    call = parent(_echo)
    with fails_with("InvalidInput") as caught:
        call.call(evaluate, programs(), call, spec(), ROWS, {"import": "tests.support.user_code:four"}, RECORD)
    assert "four" in caught[0].message and not call.requests
    with fails_with("InvalidInput"):
        reward_from({"import": "tests.support.user_code:four"}, programs().imports)


def test_metrics_in_the_parent_are_told_what_dspy_gave() -> None:
    """unit: so that the parent gives them no more: two to score, three to collect demonstrations, five in GEPA."""
    call = parent(_echo, metric_call=lambda sent: 1.0)
    metric = metric_from({"parent": "m"}, NONE)
    row, found = dspy.Example(answer="1"), dspy.Prediction(answer="1")

    def asked() -> None:
        with programs().calling(call, RECORD, None, _call_usage()):
            metric(row, found)
            metric(row, found, [])
            metric(row, found, [], "predict", [])

    call.call(asked)
    sent = [each for _, each in call.asked]
    assert [each["given"] for each in sent] == [2, 3, 5]
    assert [each.get("pred_name") for each in sent] == [None, None, "predict"]
    assert [each["trace"] for each in sent] == [None, [], []] and [each["inputs"] for each in sent] == [None] * 3


def test_a_trace_crosses_for_a_metric_that_looks_at_it() -> None:
    """unit: its steps as DSPy has them, the predictor by its name in the program and its signature."""
    call = parent(_echo, metric_call=lambda sent: 1.0)
    row = dspy.Example(question="q", answer="1").with_inputs("question")
    module = dspy.Module()
    module.solve = dspy.Predict("question -> answer")
    name_predictors(module)
    predictor = module.deepcopy().solve  # as optimizers copy them
    trace = [(predictor, {"question": "q"}, dspy.Prediction(answer="1")), (predictor, {"question": 2}, ValueError("x"))]

    def asked() -> None:
        with programs().calling(call, RECORD, None, _call_usage()):
            for sees in (["trace"], ["pred_trace"], []):
                metric_from({"parent": "m", "sees": sees}, NONE)(row, trace[0][2], trace, "predict", trace[:1])

    call.call(asked)
    sent = [each for _, each in call.asked]
    about = {
        "name": "solve",
        "module": "Predict",
        "instructions": predictor.signature.instructions,
        "inputs": {"question": "${question}"},
        "outputs": {"answer": "${answer}"},
    }
    whole = [
        [about, {"question": "q"}, {"answer": "1"}, [{}, {}]],
        [about, {"question": 2}, {}, [{}, {}]],
    ]
    assert [each["trace"] for each in sent] == [whole, [], []]
    assert [each["pred_trace"] for each in sent] == [[], whole[:1], []] and sent[0]["inputs"] == ["question"]


def test_memory_error_is_not_a_score() -> None:
    """unit: it ends the evaluation; the worker is replaced after it."""
    try:
        _evaluated({"import": "tests.support.user_code:out_of_memory"})
    except MemoryError:
        return
    raise AssertionError("MemoryError was swallowed")


def test_rows_without_their_inputs_are_refused_before_anything_is_paid() -> None:
    """unit: the row's number and the field."""
    call = parent(_echo)
    with fails_with("InvalidInput") as caught:
        call.call(evaluate, programs(), call, spec(), [{"answer": "x"}], {"name": "f1"}, RECORD)
    assert caught[0].facts["field"] == "question" and not call.requests


def test_cancelling_ends_every_row() -> None:
    """unit: no row begins afterwards and no thread is left."""

    def answer(body: dict[str, Any]) -> str:
        call.cancelled.set()
        return chat(answer="x")

    call = parent(answer)
    try:
        call.call(evaluate, programs(), call, spec(), ROWS * 10, {"name": "f1"}, RECORD, None, 2, ["question"])
    except Cancelled:
        pass
    else:
        raise AssertionError("not cancelled")
    assert len(call.requests) <= 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("dspex-rows")]


def test_a_rows_failures_are_not_counted_against_the_next() -> None:
    """unit: BestOfN keeps its count of failures on itself; each row begins with its own."""
    attempts: dict[str, int] = {}

    def answer(body: dict[str, Any]) -> Any:
        question = body["messages"][-1]["content"].split("\n")[1]
        attempts[question] = attempts.get(question, 0) + 1
        if question == "q0" or attempts[question] < 3:
            return (500, {"error": {"message": "down"}}, [])
        return chat(answer=question[1:])

    call = parent(answer)
    options = {"N": 3, "threshold": 1.0, "reward_fn": {"import": "tests.support.user_code:is_short"}}
    best = spec("dspy.BestOfN", options=options)
    _, value = call.call(evaluate, programs(), call, best, ROWS[:3], {"name": "exact_match"}, RECORD, None, 1)
    assert [row["score"] for row in value["results"]] == [0, 1, 1]


def test_a_rows_error_holds_no_key() -> None:
    """unit (X3): the key of an LM that connects by itself is in no row."""
    row = EvaluatedRow(0.0, error=ValueError("401 for sk-secret-123"))
    assert "sk-secret-123" not in json.dumps(row.to_wire(("sk-secret-123",)))
