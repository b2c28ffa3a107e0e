"""`assertions`: ask a program again, with what was wrong, until its checks hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dspex_worker.user_calls import Mismatch, require_result

from ...errors import CheckFailed, InvalidInput, SettingsError
from ...types.prediction import Prediction
from ..calling.program import Program
from .attempts import Attempt, Inputs, Loop, require_attempts
from .strategy import RepeatingStrategy, require_function

Check = Callable[[Inputs, Prediction], "bool | str | None"]
OnFailure = Literal["raise", "return"]


@dataclass(frozen=True)
class Assertions(RepeatingStrategy):
    """A program that repeats until its answers pass all checks; see `dspex.assertions`."""

    checks: tuple[Check, ...] = ()
    attempts_most: int = 3
    on_failure: OnFailure = "raise"

    @classmethod
    def over(
        cls,
        inner: Program,
        *,
        checks: Sequence[Callable[..., Any]] = (),
        attempts: int = 3,
        on_failure: OnFailure = "raise",
    ) -> Assertions:
        """Return the program over `inner`.

        Raises:
            SettingsError, InvalidInput: options that cannot be.
        """
        if not checks or not all(callable(check) for check in checks):
            raise SettingsError("Assertions need checks: functions (inputs, prediction) -> bool or text.", key="checks")
        for check in checks:
            require_function(check, "checks", "check", "inputs", "prediction")
        if attempts < 1:
            raise InvalidInput(f"At least one attempt is needed, not {attempts}.", field="attempts")
        if on_failure not in ("raise", "return"):
            raise SettingsError(f"on_failure is {on_failure!r}; it is 'raise' or 'return'.", key="on_failure")
        return cls.made("dspex.Assertions", inner, checks=tuple(checks), attempts_most=attempts, on_failure=on_failure)

    def attempts(self, inputs: Mapping[str, Any]) -> Loop:
        return asserting(
            inputs,
            self.checks,
            attempts=self.attempts_most,
            on_failure=self.on_failure,
            first_rollout=self.first_rollout,
        )


def asserting(
    inputs: Inputs, checks: Sequence[Check], *, attempts: int, on_failure: OnFailure, first_rollout: int = 0
) -> Loop:
    """Return a loop that ends with the first prediction that passes all checks; attempts get what was wrong before.

    A check gets the inputs and the prediction, and returns True or None when satisfied, else False or what is wrong.
    The first attempt is asked as usual, and may be answered from a cache. What an attempt raises is let through.

    Raises:
        CheckFailed: after `attempts`, unless on_failure is "return": then it ends with the fewest failures.
    """
    require_attempts(attempts)
    best: tuple[int, Prediction] | None = None
    feedback: tuple[str, ...] = ()
    prediction: Prediction | None = None
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
    """Return the objections of the checks; a check that only returns False gives its name."""
    found = []
    for check in checks:
        verdict = _verdict(check, check(inputs, prediction))
        if verdict is False or (isinstance(verdict, str) and verdict):
            found.append(verdict or f"the check {getattr(check, '__name__', 'of this prediction')!r} failed")
    return tuple(found)


def _verdict(check: Check, given: Any) -> Any:
    """Return what a check says.

    Raises:
        SettingsError: it is a coroutine or the like, which would pass for an answer that is right.
    """
    try:
        return require_result(given, "check", check)
    except Mismatch as error:
        raise SettingsError(str(error), key="checks") from error
