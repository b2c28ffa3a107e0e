"""Modules that hold DSPy's agents, ensembles, types and interpreters."""

# pyright: basic
from __future__ import annotations

import enum
from typing import Literal

import dspy
import pydantic


def weather(city: str, day: int = 0) -> str:
    """The weather in a city."""
    return f"sunny in {city} on day {day}"


async def slow_weather(city: str) -> str:
    """The weather, awaited."""
    return f"rain in {city}"


def broken(city: str) -> str:
    """A tool that fails."""
    raise ValueError(f"no city {city}")


class Agent(dspy.Module):
    """ReAct with a function and with a tool that fails."""

    def __init__(self, max_iters: int = 4):
        super().__init__()
        self.agent = dspy.ReAct("question -> answer", tools=[weather, dspy.Tool(broken)], max_iters=max_iters)

    def forward(self, question):
        out = self.agent(question=question)
        return dspy.Prediction(answer=out.answer, trajectory=out.trajectory)


async def slow_broken(city: str) -> str:
    """A tool that fails, awaited."""
    raise ValueError(f"no city {city}")


class AsyncAgent(dspy.Module):
    def __init__(self):
        super().__init__()
        self.agent = dspy.ReAct("question -> answer", tools=[slow_weather, slow_broken], max_iters=4)

    async def aforward(self, question):
        out = await self.agent.acall(question=question)
        return dspy.Prediction(answer=out.answer, trajectory=out.trajectory)


class Event(pydantic.BaseModel):
    name: str
    date: str
    guests: dict[str, str]


def invite(guest: str, event: Event):
    """Word an invitation."""
    return f"{guest}, come to {event.name} on {event.date}" if guest in event.guests else None


async def slow_invite(guest: str, event: Event):
    """Word an invitation, awaited."""
    return invite(guest, event)


def added(a, b):
    """Add two numbers."""
    return a + b


class Invitation(dspy.Signature):
    guest: str = dspy.InputField(desc="who is to come")
    event: Event = dspy.InputField()
    letter: str = dspy.OutputField()


class Invites(dspy.Module):
    """ReAct over a tool whose argument is a model, and over one without type hints."""

    def __init__(self):
        super().__init__()
        self.agent = dspy.ReAct(Invitation, tools=[invite])
        self.adder = dspy.ReAct("a, b -> c: int", tools=[added])

    def forward(self, guest):
        event = Event(name="Fair", date="Friday", guests={guest: "x"})
        out, total = self.agent(guest=guest, event=event), self.adder(a=1, b=2)
        return dspy.Prediction(letter=out.letter, trajectory=out.trajectory, total=total.c, additions=total.trajectory)


class InvitesAwaited(dspy.Module):
    def __init__(self):
        super().__init__()
        self.agent = dspy.ReAct(Invitation, tools=[slow_invite])

    async def aforward(self, guest):
        out = await self.agent.acall(guest=guest, event=Event(name="Fair", date="Friday", guests={guest: "x"}))
        return dspy.Prediction(letter=out.letter, trajectory=out.trajectory)


class ToolsByHand(dspy.Module):
    """Tools called by the module: one that is synchronous, one that is not, in a context that allows it."""

    def __init__(self):
        super().__init__()
        self.tools = [dspy.Tool(weather), dspy.Tool(slow_weather)]

    def forward(self, city):
        with dspy.context(allow_tool_async_sync_conversion=True):
            return [tool(city=city) for tool in self.tools]


class Tone(enum.Enum):
    SOFT = "soft"
    LOUD = "loud"


class Part(pydantic.BaseModel):
    name: str
    size: int = 1

    @pydantic.field_validator("name")
    @classmethod
    def not_empty(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("a part has a name")
        return value.strip()


class Sorted(dspy.Signature):
    """Sort the parts and say in which tone."""

    parts: list[Part] = dspy.InputField(desc="what there is")
    best: Part = dspy.OutputField()
    tone: Tone = dspy.OutputField()
    level: Literal["low", "high"] = dspy.OutputField()
    score: float = dspy.OutputField(ge=0, le=1)


class TypedInside(dspy.Module):
    """A signature of classes, used by the module itself: the values are those classes."""

    def __init__(self):
        super().__init__()
        self.sort = dspy.Predict(Sorted)

    def forward(self, names):
        out = self.sort(parts=[Part(name=name) for name in names])
        return {
            "best": out.best.name,
            "class": type(out.best).__name__,
            "soft": out.tone is Tone.SOFT,
            "level": out.level,
            "more": out.score + 1,
        }


def is_long(args, pred):
    return min(1.0, len(pred.answer) / 200)


class Attempts(dspy.Module):
    """BestOfN with a reward of the user's own, a comparison of chains, and a vote."""

    def __init__(self):
        super().__init__()
        self.best = dspy.BestOfN(dspy.ChainOfThought("question -> answer"), N=2, reward_fn=is_long, threshold=1.0)
        self.compare = dspy.MultiChainComparison("question -> answer", M=2)
        self.ask = dspy.Predict("question -> answer", n=3)

    def forward(self, question):
        chains = [dspy.Prediction(reasoning=f"because {at}", answer=str(at)) for at in range(2)]
        return {
            "best": self.best(question=question).answer,
            "compared": self.compare(chains, question=question).answer,
            "vote": dspy.majority(self.ask(question=question).completions).answer,
        }


class Refined(dspy.Module):
    """Refine, which asks for advice between its attempts."""

    def __init__(self):
        super().__init__()
        self.best = dspy.Refine(dspy.Predict("question -> answer"), N=2, reward_fn=is_long, threshold=1.0)

    def forward(self, question):
        return self.best(question=question)


class Talk(dspy.Signature):
    question: str = dspy.InputField()
    history: dspy.History = dspy.InputField()
    answer: str = dspy.OutputField()


class Chat(dspy.Module):
    """A conversation that the module keeps."""

    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict(Talk)

    def forward(self, questions):
        turns: list[dict[str, str]] = []
        for question in questions:
            answer = self.ask(question=question, history=dspy.History(messages=turns)).answer
            turns.append({"question": question, "answer": answer})
        return dspy.Prediction(turns=turns)


class Computes(dspy.Module):
    """Runs what the model wrote, in the interpreter that it is given."""

    def __init__(self):
        super().__init__()
        self.compute = dspy.ProgramOfThought("question -> answer", interpreter_factory=dspy.LocalInterpreter)

    def forward(self, question):
        return self.compute(question=question)


class Neighbors(dspy.Module):
    """Demonstrations that are like the question, and a retriever, both over an embedder of the module's own."""

    def __init__(self):
        super().__init__()
        rows = [dspy.Example(question=word, answer=word.upper()).with_inputs("question") for word in ("owl", "bee")]
        self.near = dspy.KNN(k=1, trainset=rows, vectorizer=dspy.Embedder(letters))
        self.search = dspy.retrievers.Embeddings(["owls hunt", "bees fly"], dspy.Embedder(letters), k=1)

    def forward(self, question):
        return {"near": [one.answer for one in self.near(question=question)], "found": self.search(question).passages}


def letters(texts):
    import numpy

    return numpy.array([[text.lower().count(letter) for letter in "owlbefy"] for text in texts], dtype=float)
