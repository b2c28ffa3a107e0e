"""unit: files that are no saved program are refused with InvalidInput, whatever they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dspex.errors import InvalidInput
from dspex.inprocess.signatures import signature
from dspex.programs import optimizing, predictors, saved

WHOLE = {"format": 1, "module": "dspy.Predict", "signature": signature("a -> b").to_wire()}


@pytest.mark.parametrize(
    "metadata",
    [
        3,
        [1],
        {"dspex": 3},
        {"dspex": {"module": "dspy.Predict"}},
        {"dspex": {**WHOLE, "signature": 3}},
        {"dspex": {**WHOLE, "signature": {"fields": [3]}}},
        {"dspex": {**WHOLE, "module": None}},
        {"dspex": {**WHOLE, "format": 2}},
    ],
)
def test_metadata_that_are_not_ours_are_refused(tmp_path: Path, metadata: Any) -> None:
    """unit: also with a program at hand, and a newer form is said to be one"""
    path = tmp_path / "odd.json"
    path.write_text(json.dumps({"metadata": metadata}))
    for program in (None, predictors.predictor("predict", "a -> b")):
        with pytest.raises(InvalidInput):
            saved.load(path, program=program)


def test_file_without_our_metadata_needs_its_program(tmp_path: Path) -> None:
    """unit"""
    path = tmp_path / "theirs.json"
    path.write_text('{"metadata": {"dspex": {}}}')
    with pytest.raises(InvalidInput, match="saved by DSPy itself"):
        saved.load(path)
    assert saved.load(path, program=predictors.predictor("predict", "a -> b")).program.inputs == ("a",)


def test_examples_that_are_no_mappings_are_refused() -> None:
    """unit: an element of a text, or a number, is no example"""
    for row in ("x", 3, ["a"]):
        with pytest.raises(InvalidInput, match="mapping"):
            optimizing._example(row, signature("a -> b"))  # type: ignore[arg-type]
