"""A user's own DSPy programs, as DSPy's documentation would have them: nothing of DSPex, and in nobody's `imports`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import dspy


class MultiHop(dspy.Module):
    """Three predictors, a loop, state on itself."""

    def __init__(self, hops: int = 2) -> None:
        super().__init__()
        self.hops = hops
        self.generate_query = dspy.ChainOfThought("context, question -> query")
        self.answer = dspy.Predict("context, question -> answer")
        self.calls = 0

    def forward(self, question: str, extra: str = "") -> dspy.Prediction:
        self.calls += 1
        context: list[str] = []
        for _ in range(self.hops):
            context.append(self.generate_query(context=context, question=question).query)
        answer = self.answer(context=context, question=question + extra).answer
        return dspy.Prediction(answer=answer, queries=context, calls=self.calls)


class Saying(dspy.Module):
    """Gives what it was made of, and what it is given."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.word = word

    def forward(self, **inputs: Any) -> dspy.Prediction:
        return dspy.Prediction(word=self.word, **inputs)


class Dated(dspy.Module):
    """Takes and gives objects."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question: Any, **others: Any) -> dspy.Prediction:
        return dspy.Prediction(answer=self.ask(question=str(question)).answer, day=question)


class Nested(dspy.Module):
    """Holds another module."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = MultiHop(hops=1)
        self.check = dspy.Predict("answer -> verdict")

    def forward(self, **inputs: Any) -> dspy.Prediction:
        found = self.inner(**inputs)
        return dspy.Prediction(answer=found.answer, verdict=self.check(answer=found.answer).verdict)


class OnlyAwaited(dspy.Module):
    """Has `aforward` alone."""

    def __init__(self) -> None:
        super().__init__()
        self.predict = dspy.Predict("question -> answer")

    async def aforward(self, question: str) -> dspy.Prediction:
        first, second = await asyncio.gather(
            self.predict.acall(question=question), self.predict.acall(question=question + "?")
        )
        return dspy.Prediction(answer=first.answer, other=second.answer)


class Both(dspy.Module):
    def forward(self) -> str:
        return "forward"

    async def aforward(self) -> str:
        return "aforward"


class Returning(dspy.Module):
    """Returns what it is asked for."""

    def forward(self, kind: str) -> Any:
        return VALUES[kind]()


def _generated() -> Iterator[int]:
    yield 1


VALUES: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "text": lambda: "hi",
    "number": lambda: 3,
    "list": lambda: [dspy.Prediction(a=1), dspy.Prediction(a=2)],
    "tuple": lambda: (dspy.Prediction(a=1), 0.5),
    "dict": lambda: {"a": {1, 2}, 3: (4,)},
    "object": object,
    "generator": _generated,
}


class Searching(dspy.Module):
    """Takes tools of the host's, or any function, in its constructor."""

    def __init__(self, tools: list[Any] | None = None, look: Callable[[str], str] | None = None) -> None:
        super().__init__()
        self.tools = tools or []
        self.look = look

    def forward(self, query: str) -> dspy.Prediction:
        found = [tool(query=query) for tool in self.tools]
        return dspy.Prediction(found=found, looked=self.look(query) if self.look else None)


class Slow(dspy.Module):
    def forward(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds


class Broken(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        raise LookupError("no index was built")


def build(hops: int = 1) -> dspy.Module:
    return MultiHop(hops)


def build_unsaid():  # type: ignore[no-untyped-def]  # as users write them
    return MultiHop(1)


def add(left: int, right: int = 2) -> dict[str, int]:
    return {"sum": left + right}


async def add_later(left: int, right: int) -> int:
    await asyncio.sleep(0)
    return left + right


async def await_long(seconds: float) -> None:
    await asyncio.sleep(seconds)


def ask(question: str) -> Any:
    return dspy.Predict("question -> answer")(question=question)


ready = MultiHop(hops=1)


class InRows(dspy.Module):
    """Asks in the rows of `dspy.Parallel`, and of `batch`."""

    def __init__(self) -> None:
        super().__init__()
        self.predict = dspy.Predict("question -> answer")

    def forward(self, questions: list[str]) -> list[dspy.Prediction]:
        pairs = [(self.predict, dspy.Example(question=question).with_inputs("question")) for question in questions]
        found = dspy.Parallel(num_threads=4, disable_progress_bar=True)(pairs)
        rows = [dspy.Example(question=question).with_inputs("question") for question in questions]
        return [*found, *self.predict.batch(rows, num_threads=4, disable_progress_bar=True)]


class InRowsOfOne(InRows):
    def forward(self, questions: list[str]) -> dspy.Prediction:
        return dspy.Prediction(answers=[found.answer for found in super().forward(questions)])


class AskingFirst(dspy.Module):
    """Asks in its constructor already."""

    def __init__(self) -> None:
        super().__init__()
        self.motto = dspy.Predict("question -> answer")(question="motto?").answer

    def forward(self) -> str:
        return self.motto


class Streaming(dspy.Module):
    """Holds what `dspy.asyncify` and `dspy.streamify` made."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = MultiHop(hops=1)

    async def aforward(self, question: str) -> Any:
        return await dspy.asyncify(self.inner)(question=question)


class Reading(dspy.Module):
    def forward(self, question: str, context: list[str]) -> dspy.Prediction:
        return dspy.Prediction(read=context)
