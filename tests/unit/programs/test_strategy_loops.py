"""Unit: the loops behind strategies: assertions with feedback, the best by reward, the majority; and templates."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dspex.errors import CallTimeout, CheckFailed, InvalidInput, SettingsError
from dspex.programs.strategies.assertions import asserting
from dspex.programs.strategies.attempts import Attempt, adrive, drive, with_hint
from dspex.programs.strategies.best_of_n import choosing, score_of
from dspex.programs.strategies.majority import majority_of
from dspex.signatures.signature import signature
from dspex.templates import template
from dspex.types.prediction import Prediction


class Asked:
    """A predictor that gives one answer after another; an exception is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.attempts: list[Attempt] = []

    def __call__(self, attempt: Attempt) -> Prediction:
        self.attempts.append(attempt)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Prediction({"answer": answer})

    async def later(self, attempt: Attempt) -> Prediction:
        return self(attempt)


def is_short(inputs: Any, out: Prediction) -> bool | str:
    return len(out.answer) <= inputs["limit"] or f"at most {inputs['limit']} letters"


def is_lower(inputs: Any, out: Prediction) -> bool:
    return bool(out.answer.islower())


def by_length(inputs: Any, out: Prediction) -> float:
    return float(len(out.answer))


def asserted(asked: Asked, checks: list[Any], attempts: int = 3, on_failure: Any = "raise") -> Prediction:
    return drive(asserting({"limit": 3}, checks, attempts=attempts, on_failure=on_failure), asked)


def test_assertions_tell_the_next_attempt_what_was_wrong() -> None:
    """unit: the first attempt is plain; later ones have feedback and a rollout id of their own."""
    asked = Asked("TOO LONG", "toolong", "ok")
    assert asserted(asked, [is_short, is_lower]).answer == "ok"
    assert asked.attempts[0] == Attempt(1)
    assert asked.attempts[1].feedback == ("at most 3 letters", "the check 'is_lower' failed")
    assert asked.attempts[2].feedback == ("at most 3 letters",) and asked.attempts[2].rollout_id == 2


def test_assertions_fail_with_the_last_failures_or_return_the_best() -> None:
    """unit: the one with the fewest failures."""
    with pytest.raises(CheckFailed) as caught:
        asserted(Asked("LONG", "LONG"), [is_short, is_lower], attempts=2)
    assert caught.value.attempts == 2 and len(caught.value.failures) == 2 and caught.value.prediction.answer == "LONG"
    assert asserted(Asked("long", "LONG"), [is_short, is_lower], attempts=2, on_failure="return").answer == "long"
    with pytest.raises(ValueError, match="lost"):
        asserted(Asked(ValueError("lost")), [is_short])
    with pytest.raises(InvalidInput):
        asserted(Asked(), [is_short], attempts=0)


def test_feedback_becomes_a_hint() -> None:
    """unit: an input after the others."""
    assert str(with_hint(signature("q -> a"))) == "q, hint_ -> a"


def test_the_best_is_the_highest_or_the_first_over_the_threshold() -> None:
    """unit: every attempt at temperature 1.0 with its own rollout id; the earlier wins a tie."""
    asked = Asked("a", "ccc", "bbb")
    assert drive(choosing({}, by_length, attempts=3, first_rollout=5), asked).answer == "ccc"
    assert [(each.rollout_id, each.temperature) for each in asked.attempts] == [(5, 1.0), (6, 1.0), (7, 1.0)]
    stopped = Asked("a", "ccc", "bb")
    assert drive(choosing({}, by_length, attempts=3, threshold=3), stopped).answer == "ccc"
    assert len(stopped.attempts) == 2


@pytest.mark.parametrize(
    ("attempts", "fail_count", "raised_at"),
    [(1, None, None), (2, None, None), (3, None, 3), (4, None, 4), (5, None, 4), (3, 1, 2), (4, 2, 3), (6, 9, 6)],
)
def test_failures_are_counted_as_dspy_counts_them(attempts: int, fail_count: int | None, raised_at: int | None) -> None:
    """unit: failure i is raised when i is over what is left of fail_count; without any success the last one is, too."""
    left, expected = fail_count or attempts, None
    for index in range(attempts):  # DSPy's own lines, over attempts that all fail (predict/best_of_n.py, 3.4.1)
        if index > left:
            expected = index + 1
            break
        left -= 1
    assert expected == raised_at
    asked = Asked(*[ValueError(str(number)) for number in range(1, attempts + 1)])
    with pytest.raises(ValueError, match=str(raised_at or attempts)):
        drive(choosing({}, by_length, attempts=attempts, fail_count=fail_count), asked)
    assert len(asked.attempts) == (raised_at or attempts)


def test_a_reward_that_raises_is_a_failed_attempt_and_a_timeout_of_the_whole_is_not() -> None:
    """unit"""
    assert drive(choosing({}, lambda _, out: 1 / len(out.answer), attempts=3), Asked("", "ok", "k")).answer == "k"
    over = CallTimeout("native", "dspy.BestOfN", timeout=1.0, phase="running")
    with pytest.raises(CallTimeout):
        drive(choosing({}, by_length, attempts=3), Asked("a", over, "c"))
    with pytest.raises(CheckFailed):
        drive(choosing({}, lambda *_: float("nan"), attempts=2), Asked("a", "b"))


def test_what_the_reward_says_is_told_to_the_next_attempt() -> None:
    """unit: its feedback, else the score; an attempt that failed changes nothing."""
    given = iter([{"score": 0.1, "feedback": "name the city"}, 0.25, {"score": 0}, True])
    asked = Asked("a", ValueError(), "b", "c", "d")
    loop = choosing({}, lambda *_: next(given), attempts=5, threshold=1, gives_feedback=True)
    assert drive(loop, asked).answer == "d"
    assert [each.feedback for each in asked.attempts] == [
        (), ("name the city",), ("name the city",),
        ("An earlier answer was scored 0.25; at least 1 is wanted.",),
        ("An earlier answer was scored 0; at least 1 is wanted.",),
    ]  # fmt: skip
    with pytest.raises(InvalidInput):
        score_of("much")


def test_awaiting_gives_the_same() -> None:
    """unit: the loops are driven by a blocking and an awaiting verb."""
    refined = adrive(asserting({"limit": 3}, [is_short], attempts=2, on_failure="raise"), Asked("LONG", "ok").later)
    assert asyncio.run(refined).answer == "ok"  # type: ignore[arg-type]
    best = adrive(choosing({}, by_length, attempts=3), Asked("a", ValueError(), "bb").later)
    assert asyncio.run(best).answer == "bb"  # type: ignore[arg-type]


def test_majority_compares_normalized_text_and_keeps_the_first() -> None:
    """unit: articles, case and punctuation do not count; what is empty does not vote; a tie goes to the earlier."""
    out = Prediction({"a": "x"}, completions=[{"a": ""}, {"a": "Rome"}, {"a": "The Paris."}, {"a": "paris"}, {"a": ""}])
    assert majority_of(out).a == "The Paris."
    assert majority_of([{"a": 1, "b": 2}, {"a": 3, "b": 2}], field="a").a == 1
    assert majority_of([{"a": [1]}, {"a": [2]}, {"a": [2]}]).a == [2]
    assert majority_of([{"a": "A"}, {"a": "a"}, {"a": "a"}], normalize=lambda value: value).a == "a"
    with pytest.raises(InvalidInput):
        majority_of([])


def test_template_fills_names_and_refuses_the_rest() -> None:
    """unit: strict, sandboxed, with errors of ours."""
    assert (
        template("Dear {{ name }},\n{% for x in xs %}{{ x }}{% endfor %}\n").render(name="é", xs=[1, 2])
        == "Dear é,\n12\n"
    )
    with pytest.raises(InvalidInput, match="'nam' is undefined"):
        template("{{ nam }}").render(name="x")
    with pytest.raises(InvalidInput, match="sandbox"):
        template("{{ x.__class__.__mro__ }}").render(x=1)
    with pytest.raises(InvalidInput, match="TypeError"):
        template("{{ x + 1 }}").render(x="a")
    with pytest.raises(SettingsError, match="Line 2"):
        template("ok\n{% if %}")


async def _late(inputs: Any, out: Prediction) -> float:
    return 1.0


def _wrapped(*given: Any) -> Any:
    """It does not look asynchronous."""
    return _late(*given)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_reward_that_is_a_coroutine_ends_it_at_the_first_attempt() -> None:
    """unit: every further attempt would be paid for nothing."""
    asked = Asked("one", "two", "three")
    with pytest.raises(SettingsError, match="at once") as refused:
        drive(choosing({}, _wrapped, attempts=3), asked)
    assert refused.value.key == "reward_fn" and len(asked.attempts) == 1


@pytest.mark.parametrize("check", [_wrapped, lambda *given: (False for _ in given)])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_check_that_is_a_coroutine_passes_nothing(check: Any) -> None:
    """unit: it was taken for satisfied."""
    with pytest.raises(SettingsError, match="at once"):
        asserted(Asked("one"), [check])
