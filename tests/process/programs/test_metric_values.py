"""Process: metrics get what DSPy gives them: typed values, the very examples, traces of every predictor."""

from __future__ import annotations

import asyncio
import datetime
import enum
from collections.abc import Iterator
from typing import Any

import numpy as np
import pydantic
import pytest

import dspex
from dspex.errors import OptimizationFailed, SettingsError, UnknownName
from dspex.testing import FakeLM, FakeReply
from tests.support.paths import ROOT

OWN = "tests.support.programs.own_programs"


class Label(enum.Enum):
    SPAM = "spam"
    HAM = "ham"


class Mail(pydantic.BaseModel):
    subject: str
    to: list[str] = []


class Classify(dspex.Signature):
    """Say what it is."""

    text: str = dspex.InputField()
    sent: datetime.date = dspex.InputField()
    label: Label = dspex.OutputField()
    mail: Mail = dspex.OutputField()
    day: datetime.date | None = dspex.OutputField()


DAY = datetime.date(2024, 5, 6)
ROWS = [
    {"text": f"t{number}", "sent": DAY, "label": Label.SPAM if number % 2 else Label.HAM, "plain": "spam", "day": DAY}
    for number in range(6)
]
ANSWER = {"label": "spam", "mail": '{"subject": "hi", "to": ["a"]}', "day": "2024-05-06", "reasoning": "r"}


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    env = {"PYTHONPATH": str(ROOT)}
    pools = [dspex.PoolConfig("dspy", size=2, env=env), dspex.PoolConfig("mipro", size=1, env=env)]
    with dspex.Supervisor(pools=pools) as supervisor:
        supervisor.wait_ready()
        yield supervisor


@pytest.fixture
def lm() -> Iterator[FakeLM]:
    with FakeLM({"": ANSWER}) as fake:
        yield fake


def require_typed(prediction: Any) -> None:
    assert prediction.label is Label.SPAM and prediction["label"] is Label.SPAM
    assert prediction.mail == Mail(subject="hi", to=["a"]) and prediction.mail.subject == "hi"
    assert prediction.day == DAY and prediction.toDict()["day"] == DAY


def typed(example: Any, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
    """Asserts what it gets; its score says whether the example's label was guessed."""
    require_typed(pred)
    assert example.inputs().toDict() == {"text": example.text, "sent": DAY}
    assert isinstance(example.label, Label) and example.plain == "spam" and example.day == pred.day
    assert set(example.labels().keys()) == {"label", "plain", "day"}
    for steps in (trace, pred_trace):
        for predictor, inputs, outputs in steps or ():
            assert predictor.name in ("self", "predict") and "label" in predictor.signature.output_fields
            assert inputs["sent"] == DAY
            require_typed(outputs)
    right = example.label is pred.label
    return {"score": right, "feedback": "as expected" if right else "look again"}


async def awaited(example: Any, pred: Any, trace: Any = None) -> Any:
    await asyncio.sleep(0)
    return typed(example, pred, trace)["score"]


@pytest.mark.parametrize("implementation", ["native", "python"])
@pytest.mark.parametrize("metric", [typed, awaited])
@pytest.mark.parametrize("kind", ["predict", "chain_of_thought"])
def test_an_evaluations_metric_gets_typed_values(
    sup: dspex.Supervisor, lm: FakeLM, implementation: Any, metric: Any, kind: str
) -> None:
    """process: on both routes."""
    program = dspex.predictor(kind, Classify, lm=lm, supervisor=sup, implementation=implementation)
    found = dspex.evaluate(program, ROWS, metric)
    assert found.score == 50.0 and not found.errors
    require_typed(found.rows[0].prediction)


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "bootstrap": {"max_labeled_demos": 0},
    "random_search": {"num_candidate_programs": 1, "max_labeled_demos": 1},
    "labeled": {"k": 2},
    "copro": {"breadth": 2, "depth": 1},
    "simba": {"bsize": 2, "num_candidates": 2, "max_steps": 1},
    "gepa": {"max_metric_calls": 20, "reflection_minibatch_size": 2},
    "infer_rules": {"num_candidates": 1, "num_rules": 1},
    "miprov2": {"num_candidates": 2, "num_trials": 2, "minibatch": False},
}


@pytest.mark.parametrize("metric", [typed, awaited])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_optimizers_metric_gets_typed_values(sup: dspex.Supervisor, optimizer: Any, metric: Any) -> None:
    """process: and the examples that were given; not one call of the metric fails."""
    given = {
        **ANSWER,
        **dict.fromkeys(
            ("proposed_instruction", "proposed_prefix_for_output_field", "natural_language_rules", "observations",
             "summary", "program_description", "module_description", "module_advice", "discussion"), "x"
        ),
        "module_advice": "{}",
    }  # fmt: skip
    with FakeLM({"": given}) as lm:
        program = dspex.predictor("predict", Classify, lm=lm, supervisor=sup)
        best = dspex.optimize(program, ROWS, optimizer=optimizer, metric=metric, valset=ROWS, **OPTIMIZERS[optimizer])
    assert best.errors["metric"] == 0 and best.score == 50.0


@pytest.mark.parametrize(
    "zero", [{"score": 0, "feedback": "no"}, dspex.Prediction({"score": 0.0}), np.float64(0), False]
)
def test_a_score_of_zero_makes_no_demonstration(sup: dspex.Supervisor, lm: FakeLM, zero: Any) -> None:
    """process: in whatever form it is given; DSPy takes a Prediction with a score of 0 for a success."""
    program = dspex.predictor("predict", Classify, lm=lm, supervisor=sup)

    def metric(example: Any, pred: Any, trace: Any = None) -> Any:
        return True if example.label is pred.label else zero

    best = dspex.optimize(program, ROWS, optimizer="bootstrap", metric=metric, max_labeled_demos=0)
    assert {demo["text"] for demo in best.program.state["demos"]} == {"t1", "t3", "t5"}


@pytest.mark.parametrize("given", [None, "1.0", float("nan"), {"scores": 1}])
def test_a_metric_that_gives_no_number_fails_the_job(sup: dspex.Supervisor, lm: FakeLM, given: Any) -> None:
    """process: after the baseline, with its name and its first error."""

    def odd(example: Any, pred: Any, trace: Any = None) -> Any:
        return given

    program = dspex.predictor("predict", Classify, lm=lm, supervisor=sup)
    with pytest.raises(OptimizationFailed, match=r"metric odd failed 6 .* first error was InvalidInput: .* odd gave"):
        dspex.optimize(program, ROWS, optimizer="bootstrap", metric=odd)
    assert len(lm.requests) == 6


@pytest.mark.parametrize("make", [dspex.best_of_n, dspex.refine])
@pytest.mark.parametrize("implementation", ["native", "python"])
def test_rewards_get_typed_values(sup: dspex.Supervisor, lm: FakeLM, make: Any, implementation: Any) -> None:
    """process: inputs too; what they give may be numpy's."""
    seen: list[Any] = []

    def reward(inputs: Any, pred: Any) -> Any:
        require_typed(pred)
        seen.append(inputs["sent"])
        return np.float64(1.0)

    program = make(Classify, reward_fn=reward, N=2, threshold=1.0, lm=lm, supervisor=sup, implementation=implementation)
    require_typed(program(text="t", sent=DAY))
    assert seen == [DAY]


@pytest.mark.parametrize("implementation", ["native", "python"])
def test_checks_get_typed_values(sup: dspex.Supervisor, lm: FakeLM, implementation: Any) -> None:
    """process"""

    def check(inputs: Any, pred: Any) -> bool:
        require_typed(pred)
        return bool(inputs["sent"] == DAY)

    program = dspex.assertions(Classify, [check], lm=lm, supervisor=sup, implementation=implementation)
    require_typed(program(text="t", sent=DAY))


# -- types that no schema describes ----------------------------------------------------------------------------------


class Aliased(pydantic.BaseModel):
    """An alias, a validator, a computed field."""

    model_config = pydantic.ConfigDict(populate_by_name=True)
    subject: str = pydantic.Field(alias="Subject-Line")
    words: tuple[str, ...] = ()

    @pydantic.field_validator("subject")
    @classmethod
    def _is_short(cls, value: str) -> str:
        if len(value) > 9:
            raise ValueError("too long")
        return value.title()

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def length(self) -> int:
        return len(self.subject)


class Sorted(dspex.Signature):
    mail: Aliased = dspex.InputField()
    best: Aliased = dspex.OutputField()
    others: dict[str, list[Aliased]] = dspex.OutputField()


SORTED = [
    {"mail": Aliased(subject=f"m{n}"), "best": Aliased(subject="hello" if n % 2 else "bye"), "seen": {1, 2}}
    for n in range(4)
]
BEST = {"best": '{"Subject-Line": "hello", "words": ["a"]}', "others": '{"x": [{"Subject-Line": "more"}]}'}


def by_subject(example: Any, pred: Any, trace: Any = None) -> bool:
    assert type(pred.best).__name__ == type(example.best).__name__ == type(example.mail).__name__ == "Aliased"
    assert pred.best.length == 5 and pred.best.words == ("a",) and pred.others["x"][0].subject == "More"
    assert example.seen == {1, 2}
    for _, inputs, outputs in trace or ():
        assert inputs["mail"].length == 2 and outputs.best.subject == "Hello"
    return bool(example.best.subject == pred.best.subject)


@pytest.mark.parametrize("implementation", ["native", "python"])
def test_an_evaluations_metric_gets_the_users_own_classes(sup: dspex.Supervisor, implementation: Any) -> None:
    """process: here and in workers."""
    with FakeLM({"": BEST}) as lm:
        program = dspex.predictor("predict", Sorted, lm=lm, supervisor=sup, implementation=implementation)
        for metric in (by_subject, f"{__name__}:by_subject"):
            found = dspex.evaluate(program, SORTED, metric)
            assert found.score == 50.0 and not found.errors
        assert type(found.rows[0].prediction.best) is Aliased


@pytest.mark.parametrize("metric", [by_subject, f"{__name__}:by_subject"])
def test_an_optimizers_metric_gets_the_users_own_classes(sup: dspex.Supervisor, metric: Any) -> None:
    """process: here and in the worker, in examples, predictions and traces."""
    with FakeLM({"": BEST}) as lm:
        program = dspex.predictor("predict", Sorted, lm=lm, supervisor=sup)
        best = dspex.optimize(program, SORTED, optimizer="bootstrap", metric=metric, max_labeled_demos=0)
        assert best.errors["metric"] == 0 and best.score == 50.0
        assert dspex.evaluate(best, SORTED, by_subject).score == 50.0


# -- many predictors -------------------------------------------------------------------------------------------------

HOPS = [{"question": f"Whose is {number}?", "answer": "me" if number % 2 else "you"} for number in range(4)]
HOPPING = {"reasoning": "r", "query": "q", "answer": "me"}


def test_a_trace_names_each_predictor_of_a_module(sup: dspex.Supervisor) -> None:
    """process: as `named_predictors()` does, with its own signature, inputs and outputs, in the order of the steps."""
    seen: list[Any] = []

    def hopping(example: Any, pred: Any, trace: Any = None) -> bool:
        if trace is not None:
            seen.append([(step[0].name, step[0].module, sorted(step[1]), step[2].toDict()) for step in trace])
            assert trace[0][0].signature.instructions and trace[-1][0].signature.output_fields.keys() == {"answer"}
        return bool(example.answer == pred.answer)

    with FakeLM({"": HOPPING}) as lm:
        qa = dspex.module(f"{OWN}:MultiHop", hops=2, lm=lm, supervisor=sup)
        best = dspex.optimize(qa, HOPS, optimizer="bootstrap", metric=hopping, max_labeled_demos=0)
    query = ("generate_query.predict", "Predict", ["context", "question"], {"reasoning": "r", "query": "q"})
    answer = ("answer", "Predict", ["context", "question"], {"answer": "me"})
    assert seen and all(steps == [query, query, answer] for steps in seen)
    assert best.errors["metric"] == 0 and best.score == 50.0
    assert {demo["question"] for demo in best.program.state["answer"]["demos"]} == {"Whose is 1?", "Whose is 3?"}


def test_gepas_metric_is_told_which_predictor_is_looked_at(sup: dspex.Supervisor) -> None:
    """process: its name, and its step of the trace."""
    seen: set[Any] = set()

    def hopping(gold: Any, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
        if pred_name is not None:
            ((predictor, _, outputs),) = pred_trace
            seen.add((pred_name, predictor.name, tuple(outputs.keys())))
        return {"score": float(gold.answer == pred.answer), "feedback": f"about {pred_name}"}

    with FakeLM({"": HOPPING}) as lm:
        qa = dspex.module(f"{OWN}:MultiHop", hops=1, lm=lm, supervisor=sup)
        best = dspex.optimize(qa, HOPS, optimizer="gepa", metric=hopping, max_metric_calls=30)
    assert best.errors["metric"] == 0 and best.score == 50.0
    assert seen == {
        ("generate_query.predict", "generate_query.predict", ("reasoning", "query")),
        ("answer", "answer", ("answer",)),
    }


# -- awaited ---------------------------------------------------------------------------------------------------------


def test_an_awaited_optimization_is_the_same(sup: dspex.Supervisor, lm: FakeLM) -> None:
    """process: its asynchronous metric meets one event loop, whatever it holds on to, and its reports come."""
    loops: set[Any] = set()
    reports: list[Any] = []

    async def metric(example: Any, pred: Any, trace: Any = None) -> bool:
        loops.add(asyncio.get_running_loop())
        return bool(await awaited(example, pred, trace))

    async def main() -> Any:
        program = dspex.predictor("predict", Classify, lm=lm, supervisor=sup)
        best = await dspex.aoptimize(
            program, ROWS, optimizer="bootstrap", metric=metric, on_progress=reports.append, max_labeled_demos=0
        )
        assert len(loops) == 1
        return best

    best = asyncio.run(main())
    assert best.score == 50.0 and best.errors["metric"] == 0 and reports[-1]["stage"] == "score"
    assert {demo["text"] for demo in best.program.state["demos"]} == {"t1", "t3", "t5"}


def test_a_cancelled_optimization_ends_at_once(sup: dspex.Supervisor) -> None:
    """process: though its model is silent and nothing is reported; the worker is free for the next."""
    with FakeLM(lambda messages: FakeReply(hang=True)) as lm:
        program = dspex.predictor("predict", Classify, lm=lm, supervisor=sup)

        async def main() -> None:
            task = asyncio.create_task(dspex.aoptimize(program, ROWS, optimizer="bootstrap", metric=typed))
            await asyncio.to_thread(lm.wait_for, lambda: bool(lm.requests))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        asked = len(lm.requests)
        lm.wait_for(lambda: lm.hung_up == asked)
    with FakeLM({"": ANSWER}) as other:
        best = dspex.optimize(program.using(lm=other), ROWS, optimizer="labeled", metric=typed)
    assert best.score == 50.0


@pytest.mark.parametrize("given", [{"optimizr": "gepa"}, {"optimizer": "labeled", "breadth": 3}, {"timeout": "3s"}])
def test_an_awaited_optimization_refuses_what_the_other_does(sup: dspex.Supervisor, lm: FakeLM, given: Any) -> None:
    """process: before anything is paid."""
    program = dspex.predictor("predict", Classify, lm=lm, supervisor=sup)
    with pytest.raises((UnknownName, SettingsError)):
        asyncio.run(dspex.aoptimize(program, ROWS, metric=typed, **given))
    assert not lm.requests


def look_up(query: str) -> str:
    """Look it up."""
    return query


def test_examples_of_an_optimization_may_hold_tools(sup: dspex.Supervisor) -> None:
    """process: the metric gets the example with its tools; a trace, which cannot hold their functions, their text."""
    rows = [{"question": f"q{n}", "tools": [dspex.Tool(look_up)], "answer": "yes"} for n in range(3)]

    def metric(example: Any, pred: Any, trace: Any = None) -> bool:
        assert example.tools[0].func is look_up and (trace is None or "look_up" in str(trace[0][1]["tools"]))
        return bool(example.answer == pred.answer)

    with FakeLM({"": {"answer": "yes"}}, model="openai/gpt-4o-mini") as lm:
        program = dspex.predictor("predict", "question, tools: list[dspy.Tool] -> answer", lm=lm, supervisor=sup)
        best = dspex.optimize(program, rows, optimizer="bootstrap", metric=metric, max_labeled_demos=0)
    assert best.errors["metric"] == 0 and best.score == 100.0
