"""Process: what a tool of the host returns is, in a worker, what it is for DSPy in one process."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import threading
from collections.abc import Iterator
from typing import Any

import dspy
import pydantic
import pytest

import dspex
from dspex.testing import FakeLM
from tests.support.paths import ROOT


class Kind(enum.Enum):
    A = "a"


class Place(pydantic.BaseModel):
    city: str
    kind: Kind = Kind.A


@dataclasses.dataclass
class Spot:
    x: int
    name: str = "n"


class Shown(dspy.Module):  # type: ignore[misc]
    """Tells what its input is in the worker."""

    def forward(self, given: Any) -> str:
        return f"{type(given).__module__}.{type(given).__name__}"


RESULTS: list[Any] = [
    (1, 2),
    {1},
    [Place(city="Rome")],
    {"at": Spot(1)},
    {1: "one"},
    Kind.A,
    datetime.date(2020, 1, 2),
    decimal.Decimal("1.50"),
    dspy.Prediction(answer="yes"),
    dspy.Example(question="q").with_inputs("question"),
    [dspy.Prediction(answer="yes")],
    dspy.Image("https://example.org/a.png"),
]


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    pool = dspex.PoolConfig("dspy", size=1, env={"PYTHONPATH": f"{ROOT / 'workers'}:{ROOT}"})
    with dspex.Supervisor(pools=[pool]) as supervisor:
        yield supervisor


def _scripted() -> FakeLM:
    asked = {"next_thought": "t", "next_tool_name": ["look_up", "finish"], "next_tool_args": {}, "answer": "done"}
    return FakeLM(by_field=asked)


def _sent(lm: FakeLM) -> list[Any]:
    return [request.messages for request in lm.requests]


@pytest.mark.parametrize("result", RESULTS, ids=repr)
def test_an_observation_is_worded_as_dspy_words_it(sup: dspex.Supervisor, result: Any) -> None:
    """parity: tuples, sets, models within lists, predictions: the prompts of `dspy.ReAct`, byte for byte."""

    def look_up() -> Any:
        """Look it up."""
        return result

    with _scripted() as lm, _scripted() as other:
        theirs = dspy.LM("openai/fake", api_base=other.api_base, api_key=other.api_key, cache=False)
        with dspy.context(lm=theirs):
            dspy.ReAct("question -> answer", tools=[look_up])(question="x")
        out = dspex.react("question -> answer", [look_up], lm=lm, supervisor=sup)(question="x")
        assert out.answer == "done" and _sent(lm) == _sent(other)


def test_a_tool_may_return_a_prediction_of_another_program(sup: dspex.Supervisor) -> None:
    """process: it is DSPy's own in the worker, whether as a result or as an input."""

    def look_up() -> Any:
        """Ask another program."""
        return dspex.predict("question -> answer", {"question": "y"}, lm=inner)

    with _scripted() as lm, FakeLM(by_field={"answer": "inner"}) as inner:
        out = dspex.react("question -> answer", [look_up], lm=lm, supervisor=sup)(question="x")
        assert out.trajectory["observation_0"] == {"answer": "inner"}
        shown = dspex.module(Shown, supervisor=sup)(given=look_up())
    assert shown == "dspy.primitives.prediction.Prediction"


def test_what_has_no_form_as_data_is_an_error_that_the_model_sees(sup: dspex.Supervisor) -> None:
    """process: the call goes on, as it does when a tool raises."""

    def look_up() -> Any:
        """Look it up."""
        return threading.Lock()

    with _scripted() as lm:
        out = dspex.react("question -> answer", [look_up], lm=lm, supervisor=sup)(question="x")
    assert out.answer == "done" and "cannot be sent to a worker" in out.trajectory["observation_0"]
