"""Unit: the OpenAPI document of several programs, by a validator of the specification."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest

import dspex
from dspex.serving.application import Settings
from dspex.serving.call_limits import CallLimits
from dspex.serving.openapi import openapi
from dspex.serving.program_endpoint import ProgramEndpoint
from dspex.serving.program_routes import Bounds
from dspex.serving.program_shape import shape_of
from dspex.serving.running_calls import RunningCalls

LM = dspex.LM("openai/any", api_key="k")


class Tree(pydantic.BaseModel):
    name: str
    below: list[Tree] = []


def models() -> tuple[type[pydantic.BaseModel], type[pydantic.BaseModel]]:
    """Two models of one name."""

    class Item(pydantic.BaseModel):
        a: int

    first = Item

    class Item(pydantic.BaseModel):  # type: ignore[no-redef]
        b: str

    return first, Item


def document() -> dict[str, Any]:
    first, second = models()
    one = dspex.signature("tree: Tree, item: Item -> tree_out: Tree", custom_types={"Tree": Tree, "Item": first})
    two = dspex.signature("item: Item -> item_out: Item", custom_types={"Item": second})
    programs = {"one": dspex.predictor("predict", one, lm=LM), "two": dspex.predictor("chain_of_thought", two, lm=LM)}
    endpoints = [ProgramEndpoint(name, program) for name, program in programs.items()]
    bounds = Bounds(CallLimits(30.0, budget_tokens=1000), RunningCalls(1), 1000, 7)
    shapes = [shape_of(name, program) for name, program in programs.items()]
    return openapi(endpoints, shapes, bounds, title="two", version="3", has_token=True)


def test_the_document_is_valid_and_tells_models_of_one_name_apart() -> None:
    """unit"""
    validator = pytest.importorskip("openapi_spec_validator")
    found = document()
    validator.validate(found)
    schemas = found["components"]["schemas"]
    assert {"a"} in [set(each.get("properties", ())) for each in schemas.values()]
    assert {"b"} in [set(each.get("properties", ())) for each in schemas.values()]
    assert set(schemas["twoOutputs"]["properties"]) == {"reasoning", "item_out"}
    assert found["paths"]["/one/batch"]["post"]["requestBody"]["content"]["application/json"]["schema"]["maxItems"] == 7
    assert found["components"]["parameters"]["timeout"]["schema"]["maximum"] == 30.0
    assert found["security"] == [{"token": []}]
    assert found["paths"]["/livez"]["get"]["security"] == []


def test_every_setting_of_an_application_is_one_that_asgi_takes() -> None:
    """contract: none of them is out of a user's reach."""
    import inspect

    taken = set(inspect.signature(dspex.asgi).parameters)
    own = {name.replace("has_", "") for name in Settings.__dataclass_fields__} - {"calls"}
    assert own | set(CallLimits.__dataclass_fields__) <= taken
