"""Unit: what requests must look like, and what answers do, by the types of a signature."""

from __future__ import annotations

import datetime
import enum
import json
import math
from collections.abc import Callable
from typing import Any, Literal

import pydantic
import pytest

import dspex
from dspex.errors import SettingsError
from dspex.serving.program_shape import MisfitInput, UnwritableOutput, shape_of
from dspex.types.prediction import Prediction

LM = dspex.LM("openai/any", api_key="k")


class Color(enum.Enum):
    RED = "red"


class Place(pydantic.BaseModel):
    name: str
    size: int = pydantic.Field(1, alias="the_size")


class Asked(dspex.Signature):
    """Say where it is."""

    question: str = dspex.InputField(desc="what is asked")
    place: Place = dspex.InputField()
    color: Color = dspex.InputField()
    kind: Literal["a", "b"] = dspex.InputField()
    when: datetime.date | None = dspex.InputField()
    pair: tuple[int, str] = dspex.InputField()
    by_id: dict[int, str] = dspex.InputField(default_factory=dict)
    data: bytes = dspex.InputField(default=b"")
    picture: dspex.Image | None = dspex.InputField()
    count: int = dspex.InputField(default=3, ge=1)
    copy: float = dspex.InputField(default=0.5)
    found: Place = dspex.OutputField(desc="the place")
    colors: list[Color] = dspex.OutputField()
    score: float = dspex.OutputField(le=1.0)
    raw: bytes = dspex.OutputField()


GIVEN = {"question": "where?", "place": {"name": "Rome", "the_size": 2}, "color": "red", "kind": "b", "pair": [1, "x"]}
SHAPE = shape_of("Asked", dspex.predictor("predict", Asked, lm=LM))


def test_inputs_get_their_types_and_what_was_left_out_stays_out() -> None:
    """unit"""
    read = SHAPE.read(
        {**GIVEN, "when": "2026-01-02", "by_id": {"1": "x"}, "data": "aGk=", "picture": {"url": "https://x/y"}}
    )
    assert read["place"] == Place(name="Rome", the_size=2)
    assert (read["color"], read["pair"], read["when"]) == (Color.RED, (1, "x"), datetime.date(2026, 1, 2))
    assert (read["by_id"], read["data"]) == ({1: "x"}, b"hi")
    assert isinstance(read["picture"], dspex.Image)
    assert set(SHAPE.read(GIVEN)) == set(GIVEN)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"question": 3}, "question"), ({"question": None}, "question"), ({"place": {"name": 1}}, "place.name"),
        ({"color": "blue"}, "color"), ({"kind": "c"}, "kind"), ({"pair": [1]}, "pair.1"), ({"count": 0}, "count"),
        ({"count": "3"}, "count"), ({"count": True}, "count"), ({"copy": math.inf}, ""), ({"more": 1}, "more"),
        ({"picture": {"url": "/etc/passwd"}}, "picture"), ({"picture": {"url": "file:///etc/passwd"}}, "picture"),
        ({"when": "tomorrow"}, "when"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_its_path_without_the_value(change: dict[str, Any], path: str) -> None:
    """unit"""
    with pytest.raises(MisfitInput) as caught:
        SHAPE.read({**GIVEN, **change})
    assert caught.value.misfits[0][0] == path
    assert "passwd" not in str(caught.value)


def test_a_check_of_the_users_that_raises_anything_is_a_misfit() -> None:
    """unit: it is what was given that made it raise."""

    class Fussy(pydantic.BaseModel):
        name: str

        @pydantic.model_validator(mode="before")
        @classmethod
        def look(cls, given: Any) -> Any:
            return (
                {"name": given["nme"]}
                if given["name"] != "a secret"
                else (_ for _ in ()).throw(RuntimeError("a secret"))
            )

    class Odd(dspex.Signature):
        """Odd."""

        fussy: Fussy = dspex.InputField()
        answer: str = dspex.OutputField()

    shape = shape_of("odd", dspex.predictor("predict", Odd, lm=LM))
    for name in ("a secret", "another"):
        with pytest.raises(MisfitInput) as caught:
            shape.read({"fussy": {"name": name}})
        assert "secret" not in str(caught.value)


def test_outputs_are_written_as_their_schema_says() -> None:
    """unit: aliases, enums, bytes, and a default of another type."""
    made = Prediction({"found": Place(name="Rome", the_size=2), "colors": [Color.RED], "score": 0.5, "raw": b"hi"})
    assert SHAPE.write(made) == {
        "found": {"name": "Rome", "the_size": 2}, "colors": ["red"], "score": 0.5, "raw": "aGk="
    }  # fmt: skip
    assert SHAPE.write(Prediction({"found": None, "colors": "none", "added": (1, 2)})) == {
        "found": None, "colors": "none", "added": [1, 2]
    }  # fmt: skip
    with pytest.raises(UnwritableOutput):
        SHAPE.write(Prediction({"added": object()}))


def test_the_schemas_say_descriptions_defaults_and_what_is_required() -> None:
    """unit"""
    takes = SHAPE.inputs.json_schema()
    assert set(takes["required"]) == {"question", "place", "color", "kind", "pair"}
    assert takes["additionalProperties"] is False
    assert takes["properties"]["question"]["description"] == "what is asked"
    assert (takes["properties"]["count"]["default"], takes["properties"]["count"]["minimum"]) == (3, 1)
    gives = SHAPE.outputs.json_schema(mode="serialization")
    assert gives["required"] == ["found", "colors", "score", "raw"]
    assert gives["properties"]["score"].keys() == {
        "description",
        "title",
        "type",
    }  # models are told the bound, not held to it
    json.dumps([takes, gives])


def test_a_type_that_json_cannot_hold_is_refused_when_the_program_is_served() -> None:
    """unit"""

    class Odd(dspex.Signature):
        """Odd."""

        call: Callable[[], int] = dspex.InputField()
        answer: str = dspex.OutputField()

    with pytest.raises(SettingsError, match=r"input 'call' of the program 'odd'"):
        shape_of("odd", dspex.predictor("predict", Odd, lm=LM))
