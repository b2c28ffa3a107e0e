"""Assertions: predicates over a prediction, and asking again with what was wrong until they hold. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from ...errors import CheckFailed
from ...types.prediction import Prediction
from .attempts import Attempt, Inputs, Loop, require_attempts

Check = Callable[[Inputs, Prediction], "bool | str | None"]
OnFailure = Literal["raise", "return"]


def asserting(
    inputs: Inputs, checks: Sequence[Check], *, attempts: int, on_failure: OnFailure, first_rollout: int = 0
) -> Loop:
    """A loop that ends with the first prediction that passes all checks; each attempt is told what was wrong before.

    A check gets the inputs and the prediction, and returns True or None when satisfied, else False or what is wrong.
    The first attempt is asked as usual, and may be answered from a cache. What an attempt raises is let through.

    Raises: CheckFailed after `attempts`, unless on_failure is "return": then it ends with the fewest failures.
    """
    require_attempts(attempts)
    best: tuple[int, Prediction] | None = None
    feedback: tuple[str, ...] = ()
    for number in range(1, attempts + 1):
        rollout_id = first_rollout + number - 1 if number > 1 else None
        prediction = yield Attempt(number, rollout_id=rollout_id, feedback=feedback)
        feedback = failures(checks, inputs, prediction)
        if not feedback:
            return prediction
        if best is None or len(feedback) < best[0]:
            best = (len(feedback), prediction)
    if on_failure == "raise" or best is None:
        raise CheckFailed(feedback, attempts=attempts, prediction=prediction)
    return best[1]


def failures(checks: Iterable[Check], inputs: Inputs, prediction: Prediction) -> tuple[str, ...]:
    """What the checks object to; a check that only says False is called by its name."""
    found = []
    for check in checks:
        verdict = check(inputs, prediction)
        if verdict is False or (isinstance(verdict, str) and verdict):
            found.append(verdict or f"the check {getattr(check, '__name__', 'of this prediction')!r} failed")
    return tuple(found)
