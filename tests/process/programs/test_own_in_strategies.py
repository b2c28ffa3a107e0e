"""Process: what asks another program asks a user's own module as it asks DSPy's."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import dspy
import pytest

import dspex
from dspex.errors import SettingsError
from dspex.testing import FakeLM
from tests.support.programs import own_programs

OWN = "tests.support.programs.own_programs"


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as running:
        yield running


@pytest.fixture
def lm() -> Iterator[FakeLM]:
    """Answers "Lyon" first, then "Paris"."""
    answers = itertools.chain(["Lyon"], itertools.repeat("Paris"))

    def answer(messages: Any) -> dict[str, Any]:
        said = {"query": "q", "reasoning": "r", "discussion": "d", "advice": "{}", "verdict": "v"}
        return said | ({"answer": next(answers)} if "[[ ## answer ## ]]" in str(messages[0]) else {})

    with FakeLM(answer) as fake:
        yield fake


@pytest.fixture
def how(sup: dspex.Supervisor, lm: FakeLM) -> dict[str, Any]:
    return {"supervisor": sup, "lm": lm}


def is_paris(inputs: dict[str, Any], prediction: dspex.Prediction) -> float:
    assert inputs["question"] == "capital?"
    return float(prediction.answer == "Paris")


class Held(dspy.Module):
    """Sent by value where no worker can import it."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = dspy.Predict("question -> answer")

    def forward(self, question: str) -> Any:
        return self.answer(question=question)


def _by_value() -> type[dspy.Module]:
    class Inner(Held):
        pass

    return Inner


@pytest.mark.parametrize("make", [dspex.best_of_n, dspex.refine])
@pytest.mark.parametrize("what", [f"{OWN}:MultiHop", own_programs.MultiHop, _by_value()])
@pytest.mark.parametrize("signature", [None, "question -> answer"])
def test_the_best_of_several(make: Any, what: Any, signature: Any, how: dict[str, Any]) -> None:
    """process: by a reward of this process, with and without a signature."""
    program = make(dspex.module(what, signature=signature, **how), reward_fn=is_paris, N=3, threshold=1.0)
    assert program(question="capital?").answer == "Paris"
    assert "question" in program.inputs


@pytest.mark.parametrize("make", [dspex.best_of_n, dspex.refine])
def test_rewards_see_what_was_given_and_what_came(make: Any, how: dict[str, Any]) -> None:
    """process: without a signature, inputs and outputs are of the classes that they have in the module."""
    given = {"question": datetime.date(2020, 1, 1), "tags": {"a", "b"}, "place": (1, 2), "price": Decimal("2.50")}
    seen: list[Any] = []

    def reward(inputs: dict[str, Any], out: dspex.Prediction) -> float:
        seen.append((inputs, out.day, out.answer))
        return 1.0

    program = make(dspex.module(f"{OWN}:Dated", **how), reward_fn=reward, N=1, threshold=1.0)
    assert program(**given).day == given["question"]
    assert seen == [(given, given["question"], "Lyon")]


def test_assertions_ask_again(how: dict[str, Any]) -> None:
    """process: a user's module gets no hint, for which it has no place."""
    program = dspex.assertions(dspex.module(f"{OWN}:MultiHop", hops=1, **how), [lambda i, p: p.answer == "Paris"])
    assert program(question="capital?").answer == "Paris"


def test_passages_go_to_an_input_of_the_module(how: dict[str, Any]) -> None:
    """process"""
    qa = dspex.function(lambda question, context: {"context": context, "question": question}, **how)
    with pytest.raises(SettingsError, match="query="):
        dspex.rag(lambda query, k: ["one", "two"], qa)
    reader = dspex.module(f"{OWN}:Reading", **how)
    found = dspex.rag(lambda query, k: [f"{query} {at}" for at in range(k)], reader, k=2, query="question")
    assert found(question="q").read == ["q 0", "q 1"] and found.inputs == ("question",)


def test_a_majority_is_one_of_predictions(how: dict[str, Any]) -> None:
    """process: which are made by calls; the error says how."""
    qa = dspex.module(f"{OWN}:MultiHop", hops=1, **how)
    with pytest.raises(SettingsError, match="majority_of"):
        dspex.majority(qa)
    found = [qa.using(rollout_id=at)(question="capital?") for at in range(3)]
    assert dspex.majority_of(found, field="answer").answer == "Paris"
