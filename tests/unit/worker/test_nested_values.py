"""Unit: what a module returns is read as it was written, and nothing else is."""

from __future__ import annotations

from typing import Any

import dspy
import pytest

from dspex_worker.types.nested_values import DEPTH_MOST, UnreadableValue, read, write

VALUES: list[Any] = [
    *(None, True, 3, 2.5, "text", b"bytes", [], (), set(), {}),
    [1, (2, [3]), {"a": {1, 2}, 3: (4,)}, {(1, 2): None}, frozenset({1})],
    frozenset({(1, 2)}),
    {"list": [1]},  # looks like a form
]


def _leaf(value: Any) -> Any:
    return {"data": str(value)}


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_containers_come_back_as_they_were(value: Any) -> None:
    """unit: with their types, and keys that are no text."""
    back = read(write(value, _leaf), dict, str)
    assert back == value and type(back) is type(value)


def test_predictions_at_any_depth_and_leaves() -> None:
    """unit: a leaf is what the caller makes of it."""
    form = write([(dspy.Prediction(a=1), dspy.Example(b=(2,)))], _leaf)
    assert read(form, lambda outputs: ("made", outputs), str) == [(("made", {"a": 1}), ("made", {"b": (2,)}))]
    assert read(write({"x": 1j}, _leaf), dict, str) == {"x": "1j"}
    assert read({"list": [{"exact": 7}]}, dict, lambda inside: ("exactly", inside)) == [("exactly", 7)]


def test_what_contains_itself_is_refused() -> None:
    """unit"""
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(ValueError, match="deep"):
        write(cycle, _leaf)


DEEP: Any = 1
for _ in range(DEPTH_MOST + 2):
    DEEP = {"list": [DEEP]}


@pytest.mark.parametrize(
    "form",
    [
        *([], {}, {"list": 1}, {"list": None}, {"dict": [[1]]}, {"dict": [[{"list": []}, 1]]}, {"set": [{"list": []}]}),
        *({"prediction": [1]}, {"code": 1}, {"list": [], "tuple": []}, object(), DEEP),
    ],
)
def test_what_is_no_form_is_refused(form: Any) -> None:
    """unit: a worker may send anything."""
    with pytest.raises(UnreadableValue):
        read(form, dict, str)
