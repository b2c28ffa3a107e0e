"""The best of several attempts by a reward, as `dspy.BestOfN` and `dspy.Refine` choose it. Pure.

Every attempt is made at temperature 1.0 under a rollout id of its own. An attempt or a reward that raises counts as a
failure by DSPy's rule: failure number i (from 0, among the attempts) is raised when i is over what is left of
`fail_count`, which is the number of attempts unless given, and loses one with each failure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ...errors import CallTimeout, CheckFailed, InvalidInput
from ...types.prediction import Prediction
from .attempts import HEAT, Attempt, Inputs, Loop, require_attempts

Reward = Callable[[Inputs, Prediction], Any]


def choosing(
    inputs: Inputs,
    reward: Reward,
    *,
    attempts: int,
    threshold: float | None = None,
    fail_count: int | None = None,
    first_rollout: int = 0,
    gives_feedback: bool = False,
) -> Loop:
    """A loop that ends with the highest reward, or with the first of at least `threshold`; the earlier wins a tie.

    With `gives_feedback` each attempt after one with too low a reward is told of it: by the feedback that the reward
    gives (as `{"score": 0.2, "feedback": "..."}` or an object with both), else by the score.

    Raises: the last error, when it is one too many, or when no attempt has a reward; CheckFailed when there is neither.
    """
    require_attempts(attempts)
    left = fail_count or attempts
    best: Prediction | None = None
    highest, last = -math.inf, None
    feedback: tuple[str, ...] = ()
    for index in range(attempts):
        try:
            prediction = yield Attempt(index + 1, rollout_id=first_rollout + index, temperature=HEAT, feedback=feedback)
            given = reward(inputs, prediction)
            score = score_of(given)
            if score > highest:
                highest, best = score, prediction
            if threshold is not None and score >= threshold:
                break
            feedback = (_told(given, score, threshold),) if gives_feedback else ()
        except CallTimeout:  # of the whole, not of an attempt
            raise
        except Exception as error:  # the reward or the program's; `fail_count` says how many may be
            last = error
            if index > left:
                raise
            left -= 1
    if best is not None:
        return best
    raise last or CheckFailed(("no attempt had a reward",), attempts=attempts, prediction=None)


def score_of(given: Any) -> float:
    """A reward as a number: a number, a bool, or what holds one as `score`. Raises: InvalidInput for anything else."""
    score: Any = given.get("score") if isinstance(given, Mapping) else getattr(given, "score", given)
    if isinstance(score, bool | int | float) or hasattr(score, "__float__"):
        return float(score)
    raise InvalidInput(f"A reward gives a number or a bool, not {type(given).__name__}.")


def _told(given: Any, score: float, threshold: float | None) -> str:
    said = given.get("feedback") if isinstance(given, Mapping) else getattr(given, "feedback", None)
    if said:
        return str(said)
    wanted = "a higher one" if threshold is None else f"at least {threshold:g}"
    return f"An earlier answer was scored {score:g}; {wanted} is wanted."
