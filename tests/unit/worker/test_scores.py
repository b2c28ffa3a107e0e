"""Unit: what counts as a score, in the parent and in workers."""

from __future__ import annotations

import asyncio
import decimal
import fractions
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import dspex
from dspex.services.metrics import wire_score
from dspex_worker.user_calls import Mismatch, awaited, feedback_in, score_in


class Half:
    def __float__(self) -> float:
        return 0.5


@pytest.mark.parametrize(
    ("given", "score"),
    [
        (1, 1.0), (0.25, 0.25), (True, True), (False, False), (np.float64(0.5), 0.5), (np.float32(0.5), 0.5),
        (np.bool_(True), 1.0), (np.bool_(False), 0.0), (np.int64(3), 3.0), (np.array(0.5), 0.5),
        (decimal.Decimal("0.75"), 0.75), (fractions.Fraction(1, 4), 0.25), (Half(), 0.5),
        ({"score": np.float64(0.5), "feedback": "f"}, 0.5), ({"score": False}, False),
        (SimpleNamespace(score=2), 2.0), (dspex.Prediction({"score": 0.5}), 0.5),
    ],
)  # fmt: skip
def test_a_number_in_any_form_is_a_score(given: Any, score: Any) -> None:
    """unit: of exact types, which can be sent."""
    found = score_in(given, "metric m")
    assert found == score and type(found) in (bool, float) and isinstance(found, bool) == isinstance(score, bool)


@pytest.mark.parametrize(
    "given",
    [
        None, "1.0", b"1", "", [], [1.0], {}, {"scores": 1}, {"score": None}, {"score": "high"}, object(), 1j,
        math.nan, math.inf, -math.inf, np.float64("nan"), decimal.Decimal("NaN"), {"score": math.nan}, 10**400,
        np.array([0.5, 0.5]), dspex.Prediction({"answer": "x"}), SimpleNamespace(score=None),
    ],
)  # fmt: skip
def test_what_is_no_score_says_so(given: Any) -> None:
    """unit: with the metric's name; a NaN would make a NaN of every mean."""
    with pytest.raises(Mismatch, match="metric m gave"):
        score_in(given, "metric m")


def test_feedback_and_what_is_beside_it_crosses_as_plain_data() -> None:
    """unit: what cannot be sent is left out; a plain score is plain."""
    given = {"score": np.float64(0.5), "feedback": "f", "subscores": {"a": 1}, "odd": object()}
    assert wire_score(given, "m") == {"score": 0.5, "feedback": "f", "subscores": {"a": 1}}
    assert wire_score(np.bool_(True), "m") == 1.0 and wire_score(SimpleNamespace(score=1, feedback=None), "m") == {
        "score": 1.0
    }
    assert feedback_in(1.0) is None and feedback_in({"feedback": 3}) == "3"


async def _soon(value: float) -> float:
    await asyncio.sleep(0)
    return value


def test_a_coroutine_is_awaited_where_a_loop_runs_and_where_none_does() -> None:
    """unit: its error is the caller's."""

    async def within() -> float:
        return float(awaited(_soon(2.0)))

    async def fails() -> None:
        raise KeyError("x")

    assert awaited(_soon(1.0)) == 1.0 and asyncio.run(within()) == 2.0
    with pytest.raises(KeyError):
        awaited(fails())
