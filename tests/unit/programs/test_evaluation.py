"""Unit: an Evaluation's score, intervals, comparisons and tables."""

from __future__ import annotations

import asyncio
import importlib.util
import pickle
from typing import Any

import pytest

import dspex
from dspex.errors import InvalidInput, MissingDependency
from dspex.programs.scores.confidence import interval_of_mean, sign_test
from dspex.types.example import Example


def evaluation(*scores: float | None, total: int | None = None, questions: str = "abcdefghij") -> dspex.Evaluation:
    """Rows with these scores; None is a failed one."""
    rows = [
        dspex.EvaluationRow(
            index=at,
            example=Example({"question": questions[at % 10], "answer": "x"}, ["question"]),
            prediction=None if score is None else dspex.Prediction({"answer": "<b>y</b>"}),
            score=score or 0.0,
            error=ValueError("no <answer>") if score is None else None,
            seconds=0.5,
            route="native",
        )
        for at, score in enumerate(scores)
    ]
    return dspex.Evaluation(rows, total or len(rows), "exact", 1.0, {"m": {"total_tokens": 3}}, 0.25)


def test_the_score_counts_failed_rows_as_zero() -> None:
    """unit: as DSPy does, in percent with two digits; an evaluation that was ended early has the score of its rows."""
    found = evaluation(1, 0, 1, None, 1, 0)
    assert found.score == 50.0 and [row.index for row in found.errors] == [3] and found.is_complete
    assert evaluation(1, 1, 0).score == 66.67 and evaluation(0.5, 0.25).score == 37.5
    early = evaluation(1, 0, total=10)
    assert early.score == 50.0 and not early.is_complete and "2 of 10 rows" in repr(early)
    assert evaluation(total=4).score == 0.0 and repr(evaluation(total=4)) == "<evaluation: exact 0.0, 0 of 4 rows>"
    assert repr(found) == "<evaluation: exact 50.0 (18.8 to 81.2), 6 rows, 1 failed>"
    assert pickle.loads(pickle.dumps(evaluation(1, 0))).score == 50.0


def test_wilsons_interval_where_scores_are_zero_or_one() -> None:
    """unit: the values of the literature (15 of 50 at 95 %: 0.1910 to 0.4375; 0 of 10: 0 to 0.2775)."""
    low, high = interval_of_mean([1.0] * 15 + [0.0] * 35, 0.95)
    assert (low, high) == (0.191, 0.4375)
    none = interval_of_mean([0.0] * 10, 0.95)
    assert (none.low, none.high, none.method) == (0.0, 0.2775, "wilson")
    found = evaluation(1, 0, 1, 0).confidence_interval()
    assert found.low < 50 < found.high and found.level == 0.95 and len(found) == 2 and found[0] == found.low
    assert evaluation(1, 0, 1, 0).confidence_interval(0.5).high < found.high


def test_other_scores_are_resampled_the_same_each_time() -> None:
    """unit: the bootstrap has a seed of its own; of many rows the mean is as good as normal."""
    scores = [0.1, 0.9, 0.4, 0.6, 0.5, 0.7, 0.2]
    found = interval_of_mean(scores, 0.95)
    assert found == interval_of_mean(list(scores), 0.95) and found.method == "bootstrap"
    assert 0.1 < found.low < sum(scores) / 7 < found.high < 0.9
    many = interval_of_mean([0.25, 0.75] * 1000, 0.95)
    assert many.method == "normal" and many.low == pytest.approx(0.5 - 1.96 * 0.25 / 2000**0.5, abs=1e-4)


@pytest.mark.parametrize("level", [0, 1, 95, -0.5, "0.95", True, float("nan")])
def test_an_impossible_level_is_refused(level: Any) -> None:
    """unit"""
    with pytest.raises(InvalidInput, match="level"):
        evaluation(1, 0).confidence_interval(level)
    with pytest.raises(InvalidInput, match="no row"):
        evaluation(total=3).confidence_interval()


def test_comparing_pairs_the_rows() -> None:
    """unit: ten rows of which eight got better are more than chance, though both scores' intervals overlap."""
    worse, better = evaluation(*[0] * 8, 1, 1), evaluation(*[1] * 8, 1, 1)
    found = better.compare(worse)
    assert (found.difference, found.wins, found.losses, found.ties) == (80.0, 8, 0, 2)
    assert found.p_value == round(2 / 2**8, 6) and found.is_significant and found.interval.low > 0
    back = worse.compare(better)
    assert back.difference == -80.0 and back.p_value == found.p_value
    same = better.compare(better)
    assert (same.difference, same.p_value, same.is_significant) == (0.0, 1.0, False)
    one = evaluation(1).compare(evaluation(0))
    assert one.p_value == 1.0 and not one.is_significant
    assert "8 better, 0 worse, 2 equal" in repr(found)


def test_an_evaluation_that_was_ended_early_is_compared_by_what_it_has() -> None:
    """unit"""
    whole, early = evaluation(1, 1, 0, 1), evaluation(0, 1, total=4)
    assert whole.compare(early).wins == 1 and early.compare(whole).ties == 1


@pytest.mark.parametrize("other", [evaluation(1, 0, 1), evaluation(1, 0, questions="zyxwvutsrq"), {"score": 1.0}])
def test_other_examples_cannot_be_compared(other: Any) -> None:
    """unit"""
    with pytest.raises(InvalidInput) as refused:
        evaluation(1, 0).compare(other)
    assert refused.value.field == "other"


def test_the_sign_test_is_exact_and_goes_on_where_it_must() -> None:
    """unit: small numbers by the binomial, large ones by the normal distribution."""
    assert sign_test(0, 0) == 1.0 and sign_test(5, 0) == 0.0625 and sign_test(3, 3) == 1.0
    assert sign_test(520, 480) == pytest.approx(sign_test(521, 480), abs=0.02)


def test_the_table_escapes_what_a_model_said() -> None:
    """unit: HTML for notebooks, with the first rows."""
    html = evaluation(*[1] * 25, None)._repr_html_()
    assert "<b>y</b>" not in html and "&lt;b&gt;y&lt;/b&gt;" in html and "and 6 more rows" in html
    assert "<th>example_answer</th>" in html and "<th>pred_answer</th>" in html and "<th>question</th>" in html
    assert "no &lt;answer&gt;" in evaluation(None)._repr_html_()


def test_to_pandas_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit"""
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(MissingDependency, match="pip install pandas") as missing:
        evaluation(1).to_pandas()
    assert missing.value.package == "pandas"


@pytest.mark.skipif(importlib.util.find_spec("pandas") is None, reason="pandas is not installed")
def test_to_pandas_has_a_row_for_each() -> None:
    """unit"""
    frame = evaluation(1, None).to_pandas()
    assert list(frame["score"]) == [1.0, 0.0] and frame["error"][1] == "ValueError: no <answer>"
    assert {"question", "example_answer", "pred_answer", "route", "seconds"} <= set(frame.columns)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
@pytest.mark.parametrize("how", ["metric", "awaited metric", "program", "awaited program"])
def test_what_would_end_a_thread_or_a_task_is_an_error_of_its_row(kind: type[BaseException], how: str) -> None:
    """unit: the other rows go on; nothing that was paid is lost."""

    def breaks(question: str) -> None:
        if question == "1":
            raise kind

    def metric(example: Any, prediction: Any) -> float:
        breaks(example["question"] if how == "metric" else "")
        return 1.0

    async def awaited_metric(example: Any, prediction: Any) -> float:
        breaks(example["question"])
        return 1.0

    def program(question: str) -> dict[str, str]:
        breaks(question if how == "program" else "")
        return {"answer": "a"}

    async def awaited_program(question: str) -> dict[str, str]:
        breaks(question)
        return {"answer": "a"}

    asked = awaited_program if how == "awaited program" else program
    found = dspex.evaluate(
        asked, [{"question": str(at)} for at in range(3)], awaited_metric if how == "awaited metric" else metric,
        inputs=["question"],
    )  # fmt: skip
    assert [row.score for row in found.rows] == [1.0, 0.0, 1.0]
    assert kind.__name__ in str(found.rows[1].error)
