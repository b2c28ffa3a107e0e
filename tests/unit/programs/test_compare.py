"""Unit: two programs on the same examples, paired; refused before anything is asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import dspex
from dspex.errors import EvaluationFailed, InvalidInput

ROWS = [{"number": str(at), "answer": str(2 * at)} for at in range(10)]


def right(number: str) -> dict[str, str]:
    return {"answer": str(2 * int(number))}


def half_right(number: str) -> dict[str, str]:
    return {"answer": str(2 * int(number)) if int(number) % 2 else "none"}


def test_two_functions_are_compared_row_by_row() -> None:
    """unit: each one's score and interval, the paired difference, and a sentence with the names."""
    found = dspex.compare(right, half_right, ROWS, "exact_match", names=("new", "old"))
    assert (found.score, found.other_score, found.difference.difference) == (100.0, 50.0, 50.0)
    assert (found.difference.wins, found.difference.losses, found.difference.ties) == (5, 0, 5)
    assert tuple(found.interval) == tuple(dspex.evaluate(right, ROWS, "exact_match").confidence_interval())
    assert [row.other_score for row in found.rows] == [0.0, 1.0] * 5
    assert found.rows[0].prediction["answer"] == "0" and found.rows[0].other_prediction["answer"] == "none"
    assert "On 10 examples new scores 100.0 %" in found.sentence and "old 50.0 %" in found.sentence
    assert "50.0 points more" in found.sentence and "That may be chance" in found.sentence


def test_the_other_way_round_is_the_opposite() -> None:
    """unit: and what is equal is said to be."""
    found = dspex.compare(half_right, right, ROWS, "exact_match")
    assert found.difference.difference == -50.0 and "50.0 points less" in found.sentence
    same = dspex.compare(right, right, ROWS, "exact_match")
    assert "as much" in same.sentence and not same.is_significant


def test_it_can_be_awaited() -> None:
    """unit: with the same result."""
    awaited = asyncio.run(dspex.acompare(right, half_right, ROWS, "exact_match"))
    assert awaited.difference == dspex.compare(right, half_right, ROWS, "exact_match").difference


def test_the_examples_may_be_an_iterator() -> None:
    """unit: they are gone through twice."""
    assert len(dspex.compare(right, half_right, iter(ROWS), "exact_match")) == 10


@pytest.mark.parametrize(
    "given", [{"level": 1}, {"level": 95}, {"names": "ab"}, {"names": ("a",)}, {"timeout": -1}, {"num_threads": 0}]
)
def test_what_cannot_be_is_refused_before_anything_is_asked(given: dict[str, Any]) -> None:
    """unit"""
    asked: list[str] = []

    def noting(number: str) -> dict[str, str]:
        asked.append(number)
        return {"answer": number}

    with pytest.raises((InvalidInput, dspex.DspexError)):
        dspex.compare(noting, right, ROWS, "exact_match", **given)
    for other in (object(), 3, None):
        with pytest.raises(dspex.DspexError):
            dspex.compare(noting, other, ROWS, "exact_match")
    with pytest.raises(dspex.DspexError):
        dspex.compare(noting, lambda number, more: number, ROWS, "exact_match")
    assert asked == []


def test_a_second_that_fails_keeps_what_the_first_gave() -> None:
    """unit: its evaluation was paid."""

    def failing(number: str) -> dict[str, str]:
        raise ValueError(number)

    with pytest.raises(EvaluationFailed) as caught:
        dspex.compare(right, failing, ROWS, "exact_match")
    error: Any = caught.value
    assert error.compared.score == 100.0 and len(error.partial) == 10


def test_a_row_that_fails_says_why() -> None:
    """unit: and counts as 0."""

    def failing_once(number: str) -> dict[str, str]:
        if number == "3":
            raise ValueError("three")
        return right(number)

    found = dspex.compare(failing_once, right, ROWS, "exact_match")
    assert found.score == 90.0 and found.rows[3].error == "ValueError: three" and found.rows[3].other_error == ""
