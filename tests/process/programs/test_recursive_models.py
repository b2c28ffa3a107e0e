"""Process: models that refer to themselves: prompts, answers and saved programs, on both routes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pydantic
import pytest

import dspex
from dspex.errors import SignatureError
from dspex.testing import FakeLM
from dspex_worker.types.models_from_schema import model_from_schema


class Tree(pydantic.BaseModel):
    """A tree."""

    label: str
    children: list[Tree] = []
    parent: Tree | None = pydantic.Field(None, description="the one above")


class Node(pydantic.BaseModel):
    edges: dict[str, Edge]
    tag: int = pydantic.Field(1, ge=0)


class Edge(pydantic.BaseModel):
    to: Node | None = None
    weight: float


class Expression(pydantic.BaseModel):
    left: int | Expression
    right: int | Expression


class Endless(pydantic.BaseModel):
    label: str
    child: Endless = pydantic.Field(default=None, description="deeper")


@pytest.mark.parametrize("model", [Tree, Node, Edge, Expression], ids=lambda model: model.__name__)
def test_a_model_is_rebuilt_from_its_schema(model: type[pydantic.BaseModel]) -> None:
    """unit: as a saved program brings it; the rebuilt one describes itself with the same schema."""
    made = model_from_schema(model.model_json_schema())
    assert made is not model and made.model_json_schema() == model.model_json_schema()


def test_a_rebuilt_model_reads_nested_values() -> None:
    """unit"""
    tree: Any = model_from_schema(Tree.model_json_schema())(label="a", children=[{"label": "b", "children": []}])
    assert tree.children[0].label == "b" and type(tree.children[0]) is type(tree)


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as supervisor:
        supervisor.wait_ready()
        yield supervisor


@pytest.mark.parity
@pytest.mark.parametrize("adapter", ["chat", "json"])
@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "openai/fake"])
def test_both_routes_send_and_read_the_same(sup: dspex.Supervisor, model: str, adapter: str) -> None:
    """parity: schemas with $defs in prompts and response formats; the value has the host's own class."""
    sig = dspex.signature("tree: Tree -> node: Node, again: Tree", custom_types={"Tree": Tree, "Node": Node})
    given = Tree(label="root", children=[Tree(label="leaf")])
    reply = {"node": {"edges": {"a": {"to": {"edges": {}, "tag": 2}, "weight": 1}}}, "again": given.model_dump()}
    with FakeLM(lambda messages: reply, model=model) as lm:
        program = dspex.predictor("predict", sig, lm=lm, adapter=adapter, supervisor=sup)
        native, python = (program.using(implementation=route)(tree=given) for route in ("native", "python"))
        assert lm.requests[0].raw == lm.requests[1].raw
    assert native == python and native.again == given
    assert type(python.node) is Node and python.node.edges["a"].to.tag == 2


def test_a_schema_without_an_end_is_refused_before_anything_is_sent() -> None:
    """unit: DSPy's strict form of it recurses for ever; the chat adapter asks for no schema."""
    sig = dspex.signature("q -> a: Endless", custom_types={"Endless": Endless})
    with FakeLM([{"a": {"label": "x"}}], model="openai/gpt-4o-mini") as lm:
        with pytest.raises(SignatureError, match="no end"):
            dspex.predict(sig, {"q": "x"}, lm=lm, adapter="json")
        assert not lm.requests
        assert dspex.predict(sig, {"q": "x"}, lm=lm, adapter="chat").a.label == "x"
