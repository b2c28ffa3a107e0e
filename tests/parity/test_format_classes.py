"""Parity: a pydantic class as `response_format` makes the schema that DSPy makes of it, on both routes."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator
from typing import Any, Literal

import dspy
import pytest
from pydantic import BaseModel, Field

import dspex
from dspex.lm.lm_client import LMClient
from dspex.testing import FakeLM
from tests.support.lm.requests import ASK

pytestmark = pytest.mark.parity


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(BaseModel):
    x: int = 0
    label: str | None = None


class Plain(BaseModel):
    answer: str
    confidence: float = Field(ge=0, le=1, description="how sure")


class Nested(BaseModel):
    """An answer with parts."""

    colour: Colour
    first: Point = Field(default_factory=Point, description="where it begins")
    points: list[Point] = []
    by_name: dict[str, Point] | None = None
    kind: Literal["a", "b"] = "a"


class Tree(BaseModel):
    value: int | str
    children: list[Tree] = []


TEXT = "[[ ## answer ## ]]\nx\n\n[[ ## completed ## ]]"
CLASSES = (Plain, Nested, Tree)


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as running:
        running.wait_ready()
        yield running


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.filterwarnings("ignore:Passing OpenAI-style message:DeprecationWarning")
@pytest.mark.parametrize("model_type", ["chat", "responses"])
def test_body_is_dspys(model_type: Any, kind: type[BaseModel], client: LMClient) -> None:
    """parity: byte for byte, with DSPy's own client asking the same endpoint."""
    with FakeLM("x", model="openai/gpt-4o-mini", model_type=model_type) as server:
        client.complete(server.replace(api_key=server.api_key, response_format=kind), ASK)
        theirs = dspy.LM(
            server.model, api_base=server.api_base, api_key=server.api_key, cache=False, engine="lm15",
            model_type=model_type, response_format=kind,
        )  # fmt: skip
        theirs(messages=ASK)
        ours, dspys = server.requests
        assert ours.raw == dspys.raw and kind.__name__ in str(ours.raw)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "groq/llama"])
def test_both_routes_send_it(model: str, kind: type[BaseModel], sup: dspex.Supervisor) -> None:
    """parity: with the messages of a prediction."""
    with FakeLM(lambda _: TEXT, model=model, structured_outputs=True) as server:
        lm = server.replace(api_key=server.api_key, response_format=kind)
        for route in ("native", "python"):
            how: dict[str, Any] = {"implementation": route, "supervisor": sup, "adapter": "chat"}
            dspex.predict("question -> answer", {"question": "x"}, lm=lm, **how)
        here, there = (json.loads(request.raw) for request in server.requests)
        assert here == there and here["response_format"]["json_schema"]["name"] == kind.__name__
