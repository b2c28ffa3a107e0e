"""unit: chain of thought, refining with feedback, the best of n, the majority; and templates."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dspex.errors import CheckFailed, InvalidInput, SettingsError
from dspex.inprocess import checks
from dspex.inprocess.checks import Attempt
from dspex.inprocess.prediction import Prediction
from dspex.inprocess.signatures import signature
from dspex.inprocess.templates import template


class Asked:
    """A predictor that gives one answer after another; an exception is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.attempts: list[Attempt] = []

    def __call__(self, inputs: Any, attempt: Attempt) -> Prediction:
        self.attempts.append(attempt)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Prediction({"answer": answer})

    async def later(self, inputs: Any, attempt: Attempt) -> Prediction:
        return self(inputs, attempt)


def is_short(inputs: Any, out: Prediction) -> bool | str:
    return len(out.answer) <= inputs["limit"] or f"at most {inputs['limit']} letters"


def is_lower(inputs: Any, out: Prediction) -> bool:
    return bool(out.answer.islower())


def test_chain_of_thought_prepends_reasoning() -> None:
    """unit: and keeps the instructions, as DSPy does."""
    sig = checks.chain_of_thought("q -> a: int")
    assert str(sig) == "q -> reasoning, a: int" and sig.instructions == signature("q -> a").instructions


def test_refine_tells_the_next_attempt_what_was_wrong() -> None:
    """unit: the first attempt is plain; later ones have feedback and a rollout id of their own."""
    asked = Asked("TOO LONG", "toolong", "ok")
    assert checks.refine(asked, {"limit": 3}, [is_short, is_lower]).answer == "ok"
    assert asked.attempts[0] == Attempt(1)
    assert asked.attempts[1].feedback == ("at most 3 letters", "the check 'is_lower' failed")
    assert asked.attempts[2].feedback == ("at most 3 letters",) and asked.attempts[2].rollout_id == 2


def test_refine_fails_with_the_last_failures_or_returns_the_best() -> None:
    """unit: the one with the fewest failures."""
    with pytest.raises(CheckFailed) as caught:
        checks.refine(Asked("LONG", "LONG"), {"limit": 3}, [is_short, is_lower], attempts=2)
    assert caught.value.attempts == 2 and len(caught.value.failures) == 2 and caught.value.prediction.answer == "LONG"
    best = checks.refine(Asked("long", "LONG"), {"limit": 3}, [is_short, is_lower], attempts=2, on_failure="return")
    assert best.answer == "long"
    with pytest.raises(InvalidInput):
        checks.refine(Asked(), {}, [], attempts=0)


def test_feedback_becomes_a_hint() -> None:
    """unit: an input after the others, for that attempt only."""
    sig = signature("q -> a")
    assert checks.hinted(sig, {"q": "x"}, Attempt(1)) == (sig, {"q": "x"})
    hinted, inputs = checks.hinted(sig, {"q": "x"}, Attempt(2, feedback=("shorter", "lower")))
    assert str(hinted) == "q, hint_ -> a" and inputs == {"q": "x", "hint_": "shorter\nlower"}


def test_best_of_n_takes_the_highest_and_stops_at_the_threshold() -> None:
    """unit: every attempt at temperature 1.0 with its own rollout id."""

    def reward(inputs: Any, out: Prediction) -> float:
        return float(len(out.answer))

    asked = Asked("a", "ccc", "bb")
    assert checks.best_of_n(asked, {}, reward).answer == "ccc"
    assert [(each.rollout_id, each.temperature) for each in asked.attempts] == [(0, 1.0), (1, 1.0), (2, 1.0)]
    stopped = Asked("a", "ccc", "bb")
    assert checks.best_of_n(stopped, {}, reward, threshold=3).answer == "ccc" and len(stopped.attempts) == 2


def test_best_of_n_survives_all_errors_but_one_too_many() -> None:
    """unit: the last error is the one that is raised; a reward that raises counts too."""

    def reward(inputs: Any, out: Prediction) -> float:
        return 1 / len(out.answer)

    assert checks.best_of_n(Asked(ValueError("x"), "", "ok"), {}, reward).answer == "ok"
    with pytest.raises(ValueError, match="second"):
        checks.best_of_n(Asked(ValueError("first"), ValueError("second"), "ok"), {}, reward, max_errors=1)


def test_awaiting_gives_the_same() -> None:
    """unit: arefine and abest_of_n drive the same loops."""
    refined = checks.arefine(Asked("LONG", "ok").later, {"limit": 3}, [is_short])
    assert asyncio.run(refined).answer == "ok"  # type: ignore[arg-type]
    best = checks.abest_of_n(Asked("a", ValueError(), "bb").later, {}, lambda inputs, out: len(out.answer))
    assert asyncio.run(best).answer == "bb"  # type: ignore[arg-type]


def test_majority_compares_normalized_text_and_keeps_the_first() -> None:
    """unit: articles, case and punctuation do not count; what is empty does not vote; a tie goes to the earlier."""
    out = Prediction({"a": "x"}, completions=[{"a": ""}, {"a": "Rome"}, {"a": "The Paris."}, {"a": "paris"}, {"a": ""}])
    assert checks.majority(out).a == "The Paris."
    assert checks.majority([{"a": 1, "b": 2}, {"a": 3, "b": 2}], field="a").a == 1
    assert checks.majority([{"a": 1}, {"a": 2}, {"a": 2}], normalize=lambda value: value).a == 2
    with pytest.raises(InvalidInput):
        checks.majority([])


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
