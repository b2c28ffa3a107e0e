"""Unit: what a worker answers to the shipped commands is checked before it is used; what is none is a ProtocolError."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from dspex.errors import ProtocolError
from dspex.programs.worker import worker_answers

GOOD_RUN = {"outputs": {"answer": 1}, "completions": [{"answer": 1}], "usage": {"m": {"total_tokens": 1}}, "new": 1}


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"raw": None},
        {"outputs": None},
        {"outputs": {}, "completions": {"a": 1}},
        {"outputs": {}, "completions": [None]},
        {"outputs": {}, "usage": {"m": None}},
        {"outputs": {}, "usage": [1]},
    ],
)
def test_what_is_no_prediction_is_a_protocol_error(value: Any) -> None:
    """unit: also answers that only look like one at first."""
    with pytest.raises(ProtocolError, match="dspy/1"):
        worker_answers.prediction(value, "dspy/1")


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (worker_answers.chunk, {"field": 1, "text": "x"}),
        (worker_answers.chunk, "text"),
        (worker_answers.optimized, {"state": None}),
        (worker_answers.optimized, {"state": {}, "score": "high"}),
        (worker_answers.optimized, None),
    ],
)
def test_other_odd_answers_are_protocol_errors_too(check: Callable[[Any, str], Any], value: Any) -> None:
    """unit"""
    with pytest.raises(ProtocolError):
        check(value, "dspy/1")


@pytest.mark.parametrize("passages", [None, {}, [1], [{"score": 1}], [{"text": 5}], [{"text": "t", "score": "1"}]])
def test_odd_passages_are_a_protocol_error(passages: Any) -> None:
    """unit"""
    call: Any = SimpleNamespace(result=lambda: {"passages": passages}, worker_name="dspy/1")
    with pytest.raises(ProtocolError, match="passages"):
        worker_answers.passages(call)


def test_what_a_worker_answers_passes() -> None:
    """unit: also with entries that this version does not know, and without those that may be absent."""
    count = 1 + len(GOOD_RUN["completions"])
    assert worker_answers.prediction(GOOD_RUN, "w") == {**GOOD_RUN, "exact": [{}] * count}
    assert worker_answers.prediction({"outputs": {}}, "w") == {"outputs": {}, "exact": [{}]}
    with pytest.raises(ProtocolError, match="2 'exact' for 1"):
        worker_answers.prediction({"outputs": {}, "exact": [{}, {}]}, "w")
    assert worker_answers.chunk({"field": "a", "text": "b", "predictor": ""}, "w").text == "b"
    call: Any = SimpleNamespace(result=lambda: {"passages": [{"text": "t"}, {"text": "", "score": 1}]}, worker_name="w")
    assert len(worker_answers.passages(call)) == 2
    assert worker_answers.optimized({"state": {}, "score": 1.0, "trials": []}, "w")["score"] == 1.0
