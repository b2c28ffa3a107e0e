"""A user's module, as a pool's `imports` would name it."""

from __future__ import annotations

import os  # reachable as an attribute: must not be reachable by name  # noqa: F401
from enum import Enum
from typing import Any

import dspy
from dspy import ProgramOfThought  # DSPy's own class in the user's module: answers to no name  # noqa: F401
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


class Shelf:
    """A retriever of the user's."""

    def __init__(self, books: list[str]) -> None:
        self.books = books

    def __call__(self, query: str, k: int) -> list[str]:
        return [book for book in self.books if query.lower() in book][:k]
