"""Unit: inputs that come by name are placed as a method takes them."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from dspex_worker.programs.modules.call_arguments import placed, positions


def plain(a: Any, b: Any = 2, *, c: Any = 3) -> None: ...
def only(a: Any, b: Any = 2, /, c: Any = 3) -> None: ...
def rest(a: Any, *more: Any, k: Any = 1, **others: Any) -> None: ...
def keywords(**others: Any) -> None: ...


@pytest.mark.parametrize(
    ("method", "names", "name_of_rest"),
    [(plain, ["a", "b"], None), (only, ["a", "b", "c"], None), (rest, ["a"], "more"), (keywords, [], None)],
)
def test_what_may_be_given_by_position(method: Any, names: list[str], name_of_rest: str | None) -> None:
    """unit: in order; and what takes any number more."""
    assert positions(inspect.signature(method)) == (names, name_of_rest)


@pytest.mark.parametrize(
    ("method", "inputs", "wanted"),
    [
        (plain, {"a": 1, "c": 4}, ([], {"a": 1, "c": 4})),
        (only, {"a": 1, "c": 4}, ([1], {"c": 4})),
        (only, {"a": 1, "b": 5}, ([1, 5], {})),
        (only, {"b": 5}, ([], {"b": 5})),  # the call itself says what is missing
        (rest, {"a": 1, "more": [2, 3], "k": 4, "z": 5}, ([1, 2, 3], {"k": 4, "z": 5})),
        (rest, {"a": 1, "z": 5}, ([], {"a": 1, "z": 5})),
        (rest, {"more": [2]}, ([], {"more": [2]})),
        (keywords, {"a": 1}, ([], {"a": 1})),
    ],
)
def test_inputs_are_placed(method: Any, inputs: dict[str, Any], wanted: Any) -> None:
    """unit: by position only what must be."""
    assert placed(inspect.signature(method), inputs) == wanted


def test_a_method_that_cannot_be_looked_at_gets_names() -> None:
    """unit: of a builtin without a signature, say."""
    assert placed(None, {"a": 1}) == ([], {"a": 1}) and positions(None) == ([], None)
