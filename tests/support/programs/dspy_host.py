"""Runs in a subprocess: a host that has DSPy imported evaluates and optimizes with DSPy's own objects; asserts."""

from __future__ import annotations

import asyncio
import datetime
import enum
from typing import Any

import dspy

import dspex
from dspex.errors import SettingsError
from dspex.testing import FakeLM


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


class Hops(dspy.Module):
    """Of the script itself: sent by value."""

    def __init__(self) -> None:
        super().__init__()
        self.first = dspy.Predict("question -> query")
        self.second = dspy.ChainOfThought("question, query -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return self.second(question=question, query=self.first(question=question).query)


class Asked(dspy.Signature):
    """Answer."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class Felt(dspex.Signature):
    text: str = dspex.InputField()
    mood: Mood = dspex.OutputField()
    day: datetime.date = dspex.OutputField()


ROWS = [
    dspy.Example(question=f"q{number}", answer="a" if number % 2 else "b", response="a").with_inputs("question")
    for number in range(6)
]
FELT = [
    dspy.Example(text=f"t{number}", mood=Mood.GOOD, day=datetime.date(2024, 1, 2)).with_inputs("text")
    for number in range(4)
]
ANSWER = {
    "answer": "a", "query": "x", "reasoning": "r", "response": "a", "precision": "1.0", "recall": "1.0",
    "mood": "good", "day": "2024-01-02",
}  # fmt: skip


def exact(example: Any, pred: Any, trace: Any = None) -> bool:
    assert isinstance(example, dspy.Example) and any(example is row for row in ROWS)
    return bool(example.answer == pred.answer)


def felt(example: Any, pred: Any, trace: Any = None) -> bool:
    assert isinstance(example.mood, Mood) and type(example.day) is datetime.date
    return example.mood is pred.mood and example.day == pred.day


def main() -> None:
    pools = [dspex.PoolConfig("dspy", size=2), dspex.PoolConfig("mipro", size=1)]
    with FakeLM({"": ANSWER}) as lm, dspex.Supervisor(pools=pools) as sup:
        how: dict[str, Any] = {"lm": lm, "supervisor": sup}
        modules(how)
        metrics(how, lm)
        typed(how)
    print("done")


def modules(how: dict[str, Any]) -> None:
    """A module of the script, live, by its class, as a program; examples of DSPy's own reach the metric themselves."""
    dspex.configure(**how)
    for program in (Hops(), Hops, dspex.module(Hops, **how), Asked):
        assert dspex.evaluate(program, ROWS, exact).score == 50.0
        assert asyncio.run(dspex.aevaluate(program, ROWS, exact)).score == 50.0
        best = dspex.optimize(program, ROWS, optimizer="bootstrap", metric=exact, max_labeled_demos=0)
        assert best.score == 50.0 and best.errors["metric"] == 0
        assert dspex.evaluate(best, ROWS, dspy.evaluate.answer_exact_match).score == 50.0
    assert dspex.evaluate(Hops(), [dspy.Example(question="q", answer="a")], "exact_match").score == 100.0


def metrics(how: dict[str, Any], lm: FakeLM) -> None:
    """SemanticF1 asks DSPy's own model in this process; without one it is refused before anything is paid."""
    program, asked = dspex.predictor("predict", "question -> response", **how), len(lm.requests)
    for start in (dspex.evaluate, dspex.optimize):
        try:
            start(program, ROWS, metric=dspy.evaluate.SemanticF1())
        except SettingsError as refused:
            assert "dspy.configure" in str(refused) and refused.key == "metric"
        else:
            raise AssertionError("a metric without a model was accepted")
    assert len(lm.requests) == asked
    judge = dspy.LM("openai/judge", api_base=lm.lm.api_base, api_key=lm.lm.api_key, cache=False)
    with dspy.context(lm=judge):
        assert dspex.evaluate(program, ROWS, dspy.evaluate.SemanticF1()).score == 100.0
        best = dspex.optimize(program, ROWS, optimizer="bootstrap", metric=dspy.evaluate.SemanticF1())
        assert best.score == 100.0 and best.errors["metric"] == 0
    assert {request.body["model"] for request in lm.requests[asked:]} == {"fake", "judge"}


def typed(how: dict[str, Any]) -> None:
    """Enums and dates are themselves on both sides of the comparison."""
    for implementation in ("native", "python"):
        program = dspex.predictor("predict", Felt, **how).using(implementation=implementation)  # type: ignore[arg-type]
        assert dspex.evaluate(program, FELT, felt).score == 100.0
        best = dspex.optimize(program, FELT, optimizer="bootstrap", metric=felt)
        assert best.score == 100.0 and best.errors["metric"] == 0


if __name__ == "__main__":
    main()
