"""A signature class of a user's, with types that workers must import."""

from __future__ import annotations

import enum

import dspy
import pydantic


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


class Person(pydantic.BaseModel):
    name: str
    age: int

    @pydantic.field_validator("age")
    @classmethod
    def _born(cls, value: int) -> int:
        if value < 0:
            raise ValueError("nobody is so young")
        return value


class Describe(dspy.Signature):  # type: ignore[misc]
    """Describe them."""

    person: Person = dspy.InputField(desc="who")
    hints: list[str] = dspy.InputField()
    mood: Mood = dspy.OutputField()
    other: Person = dspy.OutputField()
