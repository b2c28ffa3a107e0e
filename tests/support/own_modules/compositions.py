"""Modules made of modules: how users put predictors together, and the forms that `forward` takes."""

# pyright: basic
from __future__ import annotations

import asyncio
from typing import Any, Generic, Literal, TypeVar

import dspy

T = TypeVar("T")


class TwoHops(dspy.Module):
    """The module of DSPy's own tests: one predictor's output is the other's input."""

    def __init__(self):
        super().__init__()
        self.first = dspy.Predict("question -> query")
        self.second = dspy.Predict("query -> answer")

    def forward(self, question):
        return self.second(query=self.first(question=question).query)


class Nested(dspy.Module):
    def __init__(self):
        super().__init__()
        self.hops = TwoHops()
        self.check = dspy.ChainOfThought("question, answer -> verdict")

    def forward(self, question):
        answer = self.hops(question=question).answer
        return dspy.Prediction(answer=answer, verdict=self.check(question=question, answer=answer).verdict)


class Collections(dspy.Module):
    """Predictors in a list, a dict and a tuple."""

    def __init__(self, steps: int = 2):
        self.steps = [dspy.Predict("text -> text_out") for _ in range(steps)]
        self.by_name = {"sum": dspy.Predict("text -> summary"), "tag": dspy.ChainOfThought("text -> tag")}
        self.pair = (dspy.Predict("text -> left"), dspy.Predict("text -> right"))

    def forward(self, text):
        for step in self.steps:
            text = step(text=text).text_out
        left, right = (half(text=text) for half in self.pair)
        return dspy.Prediction(
            summary=self.by_name["sum"](text=text).summary,
            tag=self.by_name["tag"](text=text).tag,
            sides=[left.left, right.right],
        )


class WithoutInit(dspy.Module):
    """The class never calls `super().__init__()`; DSPy allows it."""

    def __init__(self):
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question):
        return self.ask(question=question)


class NoConstructor(dspy.Module):
    ask = dspy.Predict("question -> answer")  # one predictor for the class

    def forward(self, question):
        return self.ask(question=question)


class Configured(dspy.Module):
    """Constructor arguments: one required, one with a default, one that only keywords reach, and the rest."""

    def __init__(self, style: str, limit: int = 3, *, tags: list[str] | None = None, **extra: Any):
        super().__init__()
        self.style, self.limit, self.tags, self.extra = style, limit, tags, extra
        self.ask = dspy.Predict("question, style, limit: int -> answer")

    def forward(self, question):
        out = self.ask(question=question, style=self.style, limit=self.limit)
        return dspy.Prediction(answer=out.answer, tags=self.tags, extra=self.extra)


class TakesSignature(dspy.Module):
    """A constructor argument that bears the name of an option of DSPex."""

    def __init__(self, signature: str = "question -> answer", tools: int = 1, timeout: float = 2.0):
        super().__init__()
        self.ask = dspy.Predict(signature)
        self.given = [tools, timeout]

    def forward(self, question):
        return dspy.Prediction(answer=self.ask(question=question).answer, given=self.given)


class OwnCall(dspy.Module):
    """`__call__` itself is the program, as in several of DSPy's own tests."""

    def __init__(self):
        self.ask = dspy.Predict("question -> answer")
        self.score = dspy.Predict("question, answer -> score")

    def __call__(self, question: str):
        answer = self.ask(question=question).answer
        return self.score(question=question, answer=answer)


class Typed(dspy.Module, Generic[T]):
    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer: int, mood: Literal['good', 'bad']")

    def forward(self, question: str) -> Any:
        return self.ask(question=question)


class OfInt(Typed[int]):
    def forward(self, question: str) -> dspy.Prediction:
        out = super().forward(question)
        return dspy.Prediction(double=2 * out.answer, mood=out.mood)


class Base(dspy.Module):
    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question):
        return self.dressed(self.ask(question=question).answer)

    def dressed(self, answer):
        raise NotImplementedError("a subclass says how")


class Shouting:
    mark = "!"

    def dressed(self, answer):
        return dspy.Prediction(answer=answer.upper() + self.mark)


class Loud(Shouting, Base):
    mark = "!!"


class Outer:
    class Inner(dspy.Module):
        """Named by a qualified name."""

        def __init__(self):
            super().__init__()
            self.ask = dspy.Predict("question -> answer")

        def forward(self, question):
            return self.ask(question=question)

    @classmethod
    def make(cls, hops: int = 1):
        return cls.Inner() if hops == 1 else TwoHops()


def make(kind: Literal["two", "nested"] = "two"):
    """A factory."""
    return TwoHops() if kind == "two" else Nested()


class Defaults(dspy.Module):
    """A default, and an option of one keyword."""

    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question, tone, k: int -> answer")

    def forward(self, question: str, tone: str = "plain", *, k: int = 2):
        return self.ask(question=question, tone=tone, k=k)


class AnyKeywords(dspy.Module):
    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, **inputs):
        out = self.ask(question=inputs["question"])
        return dspy.Prediction(answer=out.answer, names=sorted(inputs))


class AnyArguments(dspy.Module):
    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, *questions, **inputs):
        asked = [*questions, *inputs.values()]
        return {"answers": [self.ask(question=each).answer for each in asked]}


class Awkward(dspy.Module):
    """Inputs whose names DSPy's or DSPex's own options have."""

    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("text -> answer")

    def forward(self, signature, timeout, config, demos, lm):
        given = [signature, timeout, config, demos, lm]
        return dspy.Prediction(answer=self.ask(text=str(given)).answer, given=given)


class AsyncOnly(dspy.Module):
    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")
        self.more = dspy.ChainOfThought("answer -> more")

    async def aforward(self, question):
        answer = (await self.ask.acall(question=question)).answer
        both = await asyncio.gather(*(self.more.acall(answer=f"{answer} {at}") for at in range(2)))
        return dspy.Prediction(answer=answer, more=[each.more for each in both])


class OneAtATime(dspy.Module):
    """Keeps what belongs to an event loop: a semaphore. What it is asked to raise, it raises."""

    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")
        self.turn = asyncio.Semaphore(1)
        self.inside = self.most = 0

    async def aforward(self, question):
        if question == "exit":
            raise SystemExit(3)
        async with self.turn:
            self.inside += 1
            self.most = max(self.most, self.inside)
            await asyncio.sleep(0.01)
            answer = (await self.ask.acall(question=question)).answer
            self.inside -= 1
        return dspy.Prediction(answer=answer, most=self.most)


class BothWays(dspy.Module):
    """What runs says so."""

    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question):
        return dspy.Prediction(answer=self.ask(question=question).answer, ran="forward")

    async def aforward(self, question):
        return dspy.Prediction(answer=(await self.ask.acall(question=question)).answer, ran="aforward")


class OwnLoop(dspy.Module):
    """`forward` runs a loop of its own."""

    def __init__(self):
        super().__init__()
        self.inner = AsyncOnly()

    def forward(self, question):
        return asyncio.run(self.inner.acall(question=question))


class InThreads(dspy.Module):
    """`dspy.Parallel`, also inside itself, and `batch`."""

    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")
        self.hops = TwoHops()
        self.parallel = dspy.Parallel(num_threads=2, disable_progress_bar=True)

    def forward(self, questions):
        rows = [dspy.Example(question=each).with_inputs("question") for each in questions]
        side_by_side = self.parallel([(self.ask, row) for row in rows] + [(self.hops, rows[0])])
        nested = self.parallel([(self.ask, rows[0]), (self.parallel, [(self.ask, rows[-1])])])
        batch = self.ask.batch(rows, num_threads=2, disable_progress_bar=True)
        return dspy.Prediction(
            side_by_side=[out.answer for out in side_by_side],
            nested=[nested[0].answer, nested[1][0].answer],
            batch=[out.answer for out in batch],
        )


class Asyncified(dspy.Module):
    """`dspy.asyncify` and `dspy.syncify` in one program."""

    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")
        self.inner = dspy.syncify(AsyncOnly(), in_place=False)

    def forward(self, question):
        apart = asyncio.run(dspy.asyncify(self.ask)(question=question))
        return dspy.Prediction(answer=apart.answer, more=self.inner(question=question).more)
