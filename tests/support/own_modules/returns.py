"""Modules by what they return, and by how they fail."""

# pyright: basic
from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
from pathlib import Path

import dspy
import pydantic


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


class Mail(pydantic.BaseModel):
    subject: str
    day: datetime.date = datetime.date(2026, 1, 2)


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Broken(Exception):
    """An exception of the user's own."""

    def __init__(self, part: str, code: int):
        super().__init__(f"{part} failed with {code}")
        self.part, self.code = part, code


class Returns(dspy.Module):
    """Gives back a value of the kind that it is asked for."""

    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, kind):
        out = self.ask(question=kind)
        return {
            "none": lambda: None,
            "text": lambda: out.answer,
            "number": lambda: 7,
            "float": lambda: 0.5,
            "bool": lambda: True,
            "bytes": lambda: b"\x00\xff",
            "dict": lambda: {"answer": out.answer, "n": 1},
            "empty": dict,
            "list": lambda: [out.answer, 2],
            "tuple": lambda: (out.answer, 2, None),
            "prediction": lambda: out,
            "bare": lambda: dspy.Prediction(),
            "example": lambda: dspy.Example(question="q", answer=out.answer).with_inputs("question"),
            "predictions": lambda: [out, dspy.Prediction(answer="b")],
            "pair": lambda: (out, 0.5),
            "nested": lambda: dspy.Prediction(inner=out, rows=[dspy.Example(a=1)], more={"deep": out}),
            "nothing": lambda: dspy.Prediction(answer=None, items=[], table={}),
            "numbers": lambda: dspy.Prediction(big=2**40, small=-3, half=0.5, yes=True),
            "unicode": lambda: dspy.Prediction(answer="naïve 東京 🎈\n\ttab"),
            "completions": lambda: dspy.Prediction.from_completions([{"answer": "a"}, {"answer": "b"}]),
        }[kind]()


class Rich(dspy.Module):
    """Predictions that hold more than plain data."""

    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, kind):
        self.ask(question=kind)
        value = {
            "enum": Mood.GOOD,
            "model": Mail(subject="Hi"),
            "dataclass": Point(1, 2),
            "date": datetime.date(2026, 3, 4),
            "datetime": datetime.datetime(2026, 3, 4, 5, 6, 7),
            "decimal": decimal.Decimal("1.50"),
            "set": {"a"},
            "models": [Mail(subject="a"), Mail(subject="b")],
        }[kind]
        return dspy.Prediction(value=value)


class Fails(dspy.Module):
    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, kind):
        self.ask(question=kind)
        if kind == "value":
            raise ValueError("no such city")
        if kind == "key":
            return {}["city"]
        if kind == "attribute":
            return None.city  # type: ignore[attr-defined]
        if kind == "assert":
            raise AssertionError("the sum is wrong")
        if kind == "own":
            raise Broken("the search", 7)
        if kind == "chained":
            try:
                raise KeyError("deep")
            except KeyError as error:
                raise RuntimeError("shallow") from error
        if kind == "exit":
            raise SystemExit(3)
        if kind == "timeout":
            raise TimeoutError("the search took too long")
        if kind == "stop":
            raise StopIteration("it ran out")
        if kind == "missing":
            return self.ask(question=kind).no_such_field
        if kind == "forward":
            return dspy.Module()(question=kind)
        if kind == "unset":
            return self.never_set(question=kind)
        raise NotImplementedError(kind)


class FailsToBuild(dspy.Module):
    def __init__(self, path: str = "/nowhere/at/all.txt"):
        super().__init__()
        self.text = Path(path).read_text()

    def forward(self, question):
        return self.text
