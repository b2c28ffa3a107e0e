"""unit: types as text and as schemas, as the host and its workers read them."""

from __future__ import annotations

import enum
import typing
from collections.abc import Sequence
from typing import Annotated, Any

import pydantic
import pytest

from dspex.signatures.field import InputField, OutputField
from dspex.signatures.signature import Signature
from dspex.signatures.wire_form import signature_from_wire, signature_to_wire
from dspex_worker.types.annotation_facts import is_rich
from dspex_worker.types.annotation_reader import Unreadable, Vocabulary, read_annotation, read_canonical
from dspex_worker.types.models_from_schema import Unbuildable, model_from_schema
from dspex_worker.types.type_specs import classes_from_specs

TABLE = Vocabulary(dspy_type=lambda name: f"dspy.{name}", code_of=lambda language: f"Code[{language}]")


class Item(pydantic.BaseModel):
    name: str
    tags: list[Annotated[str, pydantic.Field(min_length=2)]] = []


class Order(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(title="An order")

    items: list[Item]
    note: str = pydantic.Field("", examples=["soon"])


@pytest.mark.parametrize("text", ["List", "dict[int]", "Union", "Dict"])
def test_bare_generics_are_types_only_in_canonical_text(text: str) -> None:
    """unit: a class-style signature may have them; in a string they are a slip."""
    assert read_canonical(text, TABLE) is not None
    with pytest.raises(Unreadable):
        read_annotation(text, TABLE)


@pytest.mark.parametrize("annotation", [typing.List, dict, Sequence[int], type(None), set[str]])  # noqa: UP006
def test_what_a_class_style_signature_names_comes_back(annotation: Any) -> None:
    """unit: from the wire form, on the host too."""

    class QA(Signature):
        q: annotation = InputField()  # type: ignore[valid-type]
        a: str = OutputField()

    wire = signature_to_wire(QA)
    assert signature_to_wire(signature_from_wire(wire)) == wire


@pytest.mark.parametrize("text", ["Annotated[int, Field(gt=[1])]", "Annotated[int, Field(gt=f())]", "Literal[-True]"])
def test_only_constants_are_read(text: str) -> None:
    """unit: nothing is evaluated."""
    with pytest.raises(Unreadable):
        read_annotation(text, TABLE)


def test_the_vocabulary_gives_dspys_types() -> None:
    """unit: each side has its own; names of nobody's are said."""
    assert read_annotation("dspy.Image", TABLE) == read_annotation("dspy.experimental.Image", TABLE) == "dspy.Image"
    assert read_annotation("dspy.Code['java']", TABLE) == "Code[java]"
    with pytest.raises(Unreadable) as caught:
        read_annotation("list[dspy.settings]", TABLE)
    assert caught.value.name == "dspy.settings" and caught.value.position == 5


def test_a_rebuilt_model_has_its_own_name_and_title() -> None:
    """unit: prompts show the name; the schema has the title, examples and the constraints of nested types."""
    schema = Order.model_json_schema()
    made = model_from_schema(schema, "Order")
    assert made.__name__ == "Order" and made.model_json_schema() == schema


def test_a_reference_prefers_a_known_class_that_fits() -> None:
    """unit: a type of the same name that differs is left alone."""

    class Other(pydantic.BaseModel):
        number: int

    schema = Order.model_json_schema()
    known: Any = model_from_schema(schema, "Order", {"Item": Item})
    assert type(known(items=[{"name": "x"}]).items[0]) is Item
    made: Any = model_from_schema(schema, "Order", {"Item": Other})
    assert made.model_json_schema() == schema and type(made(items=[{"name": "x"}]).items[0]) is not Other


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object", "title": "T", "properties": {"a": {"type": "string", "format": "email"}}},
        {"type": "object", "title": "T", "properties": {"__class__": {"type": "string"}}},
        {"type": "string", "title": "T"},
        {"$ref": "#/$defs/T"},
        {"type": "object", "title": "T", "properties": {"a": {"$ref": "os:system"}}},
    ],
)
def test_a_schema_that_cannot_be_rebuilt_exactly_is_refused(schema: dict[str, Any]) -> None:
    """unit: whatever it says."""
    with pytest.raises(Unbuildable):
        model_from_schema(schema)


def test_each_kind_of_class_is_described_once() -> None:
    """unit: enums keep their order and text, imports are the side's own business, the rest is refused."""

    def refused(name: str, reason: str) -> Exception:
        return LookupError(f"{name} {reason}")

    specs = {"Color": {"enum": {"RED": 1, "BLUE": 2}, "doc": "A color."}, "Path": {"import": "os:PathLike"}}
    classes = classes_from_specs(specs, lambda name, path: path, refused)
    assert issubclass(classes["Color"], enum.Enum) and [each.name for each in classes["Color"]] == ["RED", "BLUE"]
    assert classes["Color"].__doc__ == "A color." and classes["Path"] == "os:PathLike"
    for spec in ({}, {"enum": 5}, {"model": []}, {"import": None}, 5):
        with pytest.raises(LookupError, match="T is described neither"):
            classes_from_specs({"T": spec}, lambda name, path: path, refused)


def test_rich_inputs_are_those_that_plain_types_do_not_describe() -> None:
    """unit: both routes validate the same ones."""
    assert not any(map(is_rich, (str, list, list[str], dict[str, Any], typing.Literal["a"], Annotated[int, 1])))
    assert all(map(is_rich, (Item, list[Item], tuple[int, ...], set[str], int | Item, Annotated[Item, 1])))
