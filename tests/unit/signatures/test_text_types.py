"""Unit: which types a text is a value of, as a command line gives it."""

from __future__ import annotations

import enum
import inspect
from typing import Annotated, Any, Literal

import pytest

from dspex_worker.types.annotation_facts import takes_text


class Color(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    "annotation",
    [str, Any, object, inspect.Parameter.empty, str | None, int | str, Annotated[str, "note"], Color,
     Literal["a", "b"], "str", "str | None", "int | str", "Optional[str]", "Any"],
)  # fmt: skip
def test_a_text_is_a_value_of_it(annotation: Any) -> None:
    """unit"""
    assert takes_text(annotation)


@pytest.mark.parametrize(
    "annotation",
    [int, float, bool, list[str], dict[str, str], int | None, Literal[1, "a"], "int", "list[str]", "dict[str, Any]"],
)
def test_it_is_not(annotation: Any) -> None:
    """unit"""
    assert not takes_text(annotation)
