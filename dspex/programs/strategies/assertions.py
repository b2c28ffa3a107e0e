"""Assertions as a program: predicates with feedback, and asking again with it as a hint, on either route."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import InvalidInput, SettingsError
from ..program import Program
from .assertion_checks import Check, OnFailure, asserting
from .attempts import Loop
from .strategy import RepeatingStrategy, require_function


@dataclass(frozen=True)
class Assertions(RepeatingStrategy):
    """A program whose answers hold; see `dspex.assertions`."""

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
        """The program over `inner`. Raises: SettingsError, InvalidInput for options that cannot be."""
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
