"""A user's module that puts a text which it found somewhere into a prompt, in each way there is."""

from __future__ import annotations

from typing import Any

import dspy
from pydantic import BaseModel

from tests.support.victims.passing_ways import BLOCK, END, MARKED, START


class Note(BaseModel):
    """A value with a text in it."""

    text: str


class Passing(dspy.Module):
    """Asks about what it found."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("q: Any, also -> a")
        self.first = dspy.Predict("q -> found")

    def forward(self, way: str) -> Any:
        if way == "chained":
            return self.ask(q=self.first(q="anything").found, also="x")
        if way == "history":
            talk = dspy.Predict("history: dspy.History, q -> a")
            return talk(history=dspy.History(messages=[{"q": MARKED, "a": "x"}]), q="x")
        if way == "demo":
            return self.ask(q="x", also="y", demos=[dspy.Example(q=MARKED, also="x", a="y")])
        if way == "halves":
            return self.ask(q=f"a {START}{BLOCK}", also=f"{END} b")
        values: dict[str, Any] = {
            "text": MARKED,
            "list": ["x", [MARKED]],
            "key": {MARKED: 1},
            "model": Note(text=MARKED),
            "nested": f"{START} {START}{BLOCK}{END}{END}",
            "quoted": MARKED.replace('"', '\\"'),
            "example": dspy.Example(q=MARKED),
            "bytes": MARKED.encode(),
        }
        return self.ask(q=values[way], also="x")


class Looking(dspy.Module):
    """Asks about an image of its own, and then of the text that it became."""

    def __init__(self) -> None:
        super().__init__()
        self.look = dspy.Predict("image: dspy.Image, q -> a")
        self.ask = dspy.Predict("q -> a")

    def forward(self, way: str) -> Any:
        image = dspy.Image("data:image/png;base64,aGVsbG8=")
        if way == "image":
            return self.look(image=image, q="what is it?")
        return self.ask(q=f"the steps so far: {image}")


def fetch(url: str) -> str:
    """Return the text of a page."""
    return MARKED


def scored(example: Any, prediction: Any, trace: Any = None) -> float:
    """Score anything."""
    return 1.0
