"""A user's module, as a pool's `imports` would name it."""

from __future__ import annotations

import functools
import os  # reachable as an attribute: must not be reachable by name  # noqa: F401
from datetime import datetime  # as these are: what they make and do is not the user's  # noqa: F401
from enum import Enum
from os import system  # noqa: F401
from subprocess import Popen, check_output  # noqa: F401
from typing import Any

import dspy
from dspy import ProgramOfThought  # DSPy's own class in the user's module: answers to no name  # noqa: F401
from dspy.predict.parameter import Parameter
from pydantic import BaseModel, Field


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int = Field(ge=0, default=1)


class Describe(dspy.Signature):
    """Describe the person."""

    person: Person = dspy.InputField()
    hints: list[str] | None = dspy.InputField(desc="what to look for", default=None)
    mood: Mood = dspy.OutputField()
    score: float = dspy.OutputField(ge=0, lt=1, desc="how sure")


class Counting(dspy.Module):
    """Keeps a list on itself: calls must not see each other's."""

    def __init__(self, signature: Any, times: int = 2) -> None:
        super().__init__()
        self.predict = dspy.Predict(signature)
        self.times = times
        self.seen: list[int] = []

    def forward(self, **inputs: Any) -> Any:
        self.seen.append(1)
        last = [self.predict(**inputs) for _ in range(self.times)][-1]
        return dspy.Prediction(answer=last.answer, seen=len(self.seen))


class Awaiting(dspy.Module):
    def __init__(self, signature: Any) -> None:
        super().__init__()
        self.predict = dspy.Predict(signature)

    def forward(self, **inputs: Any) -> Any:
        import asyncio

        return asyncio.run(self.predict.acall(**inputs))


class Fetcher(Parameter):  # type: ignore[misc]
    """A part with a state of its own, which it takes as dspy.Retrieve does."""

    def __init__(self, k: int) -> None:
        self.k = k

    def dump_state(self, json_mode: bool = True) -> dict[str, Any]:
        return {"k": self.k}

    def load_state(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


class Fetching(dspy.Module):
    """Has a part that is no predictor."""

    def __init__(self, signature: Any) -> None:
        super().__init__()
        self.fetch = Fetcher(k=3)
        self.predict = dspy.Predict(signature)


def same(example: Any, prediction: Any) -> float:
    from dspex_worker.bridge import current

    assert current().pool == "dspy"  # the call's context reaches metrics in every thread
    return float(example.answer == prediction.answer)


def raising(example: Any, prediction: Any, trace: Any = None) -> float:
    raise ValueError("the metric is broken")


def out_of_memory(example: Any, prediction: Any, trace: Any = None) -> float:
    raise MemoryError


def is_short(arguments: dict[str, Any], prediction: Any) -> float:
    return 1.0 if len(prediction.answer) < 4 else 0.0


made_here = functools.partial(same)
wrapped = functools.wraps(same)(lambda example, prediction: same(example, prediction))


class Shelf:
    """A retriever of the user's."""

    def __init__(self, books: list[str]) -> None:
        self.books = books

    def __call__(self, query: str, k: int) -> list[str]:
        return [book for book in self.books if query.lower() in book][:k]


def at_least(example: Any, prediction: Any, trace: Any = None, share: float = 0.5) -> bool:
    """A parameter of its own after DSPy's three."""
    return float(example.answer == prediction.answer) >= share


class Judge(dspy.Module):
    """A metric in the form of SemanticF1: a module with parameters of its own."""

    def __init__(self, share: float = 0.5) -> None:
        super().__init__()
        self.share = share

    def forward(self, example: Any, pred: Any, trace: Any = None) -> Any:
        score = float(example.answer == pred.answer)
        return score if trace is None else score >= self.share


judge = Judge()
partly = functools.partial(at_least, share=0.9)
keyworded = functools.partial(dspy.evaluate.answer_exact_match, frac=0.5)


def four(example: Any, prediction: Any, trace: Any, mine: Any) -> float:
    return 1.0


def about(gold: Any, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
    """A metric of GEPA's form."""
    return dspy.Prediction(score=float(gold.answer == pred.answer), feedback=f"for {pred_name}")
