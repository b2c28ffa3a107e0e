"""A `dspy.Type` and signatures of a user's own, named by path; only DSPy's side and workers import this."""

from __future__ import annotations

from typing import Any, Literal

import dspy
import pydantic
from dspy.experimental import Document

from tests.support.parity.shapes import Item, Order

PlainDocument = Document  # given as plain data by a host without DSPy


class Event(dspy.Type):
    """A type with blocks of its own."""

    label: str

    def format(self) -> list[dict[str, Any]]:
        return [{"type": "text", "text": f"event {self.label}"}]

    @classmethod
    def description(cls) -> str:
        return "An event block."


class Documents(pydantic.BaseModel):
    """Documents inside a model."""

    documents: list[Document]


class AboutEvent(dspy.Signature):
    """Tell of the event."""

    event: Event = dspy.InputField()
    answer: str = dspy.OutputField()


class AboutDocuments(dspy.Signature):
    """Sum them up."""

    document: Documents = dspy.InputField()
    text: str = dspy.OutputField()


class KitchenSink(dspy.Signature):
    """Answer carefully using every available signal."""

    history: dspy.History = dspy.InputField()
    image: dspy.Image = dspy.InputField()
    file: dspy.File = dspy.InputField()
    document: Document = dspy.InputField()
    event: Event = dspy.InputField()
    tools: list[dspy.Tool] = dspy.InputField()
    profile: Order = dspy.InputField()
    context: str = dspy.InputField()
    question: str = dspy.InputField()
    answer: Item = dspy.OutputField()
    verdict: Literal["yes", "no"] = dspy.OutputField()
    confidence: float = dspy.OutputField()
