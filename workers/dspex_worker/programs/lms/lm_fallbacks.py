"""Ask an LM's fallbacks when it fails: the same rule as the native side's (dspex/lm/failover.py).

Another LM is asked when one failed in a way that another may do better, and nothing of the answer was shown yet. Every
LM of the line is asked with the call's own options. Any thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import dspy
from dspy.utils import exceptions as dspy_errors

from ..dspy_parts import as_the_adapters_call, lm_error_kinds

_PASSED_ON = (
    dspy_errors.LMTransportError,
    dspy_errors.LMRateLimitError,
    dspy_errors.LMTimeoutError,
    dspy_errors.LMServerError,
    dspy_errors.LMAuthError,
    dspy_errors.LMBillingError,
    dspy_errors.LMUnsupportedModelError,
    *lm_error_kinds("LMLockTimeoutError", "LMStreamAssemblyError"),
)


@dataclass
class FallbackTurn:
    """One LM's turn in a line of them."""

    has_alternative: bool = False
    instead_of: str | None = None  # the model that failed before
    reason: str = ""  # with what
    was_shown: bool = False  # some of the answer: it cannot be taken back


class FallbackLM(dspy.LM):  # type: ignore[misc]
    """`dspy.LM` with `fallbacks`. Subclasses say in `ask` and `aask` how one of the line is asked."""

    fallbacks: tuple[FallbackLM, ...] = ()
    ref: str = ""  # by which the parent knows it
    is_temperature_fixed = False  # it refuses another than its own

    def __call__(self, prompt: Any = None, *, messages: Any = None, **options: Any) -> Any:
        line = FallbackLine(self)
        for lm, turn in line:
            try:
                with line.origin(lm, messages):
                    return lm.ask(turn, prompt, messages, dict(options))
            except dspy_errors.LMError as error:
                line.failed(error)
        raise AssertionError("the last failure is raised")

    async def acall(self, prompt: Any = None, *, messages: Any = None, **options: Any) -> Any:
        line = FallbackLine(self)
        for lm, turn in line:
            try:
                with line.origin(lm, messages):
                    return await lm.aask(turn, prompt, messages, dict(options))
            except dspy_errors.LMError as error:
                line.failed(error)
        raise AssertionError("the last failure is raised")

    def ask(self, turn: FallbackTurn, prompt: Any, messages: Any, options: dict[str, Any]) -> Any:
        """Ask this LM alone."""
        return super().__call__(prompt, messages=messages, **options)

    async def aask(self, turn: FallbackTurn, prompt: Any, messages: Any, options: dict[str, Any]) -> Any:
        """`ask`, awaited."""
        return await super().acall(prompt, messages=messages, **options)

    def copy(self, **changes: Any) -> Any:
        copied = super().copy(**changes)
        copied.fallbacks = tuple(lm.copy(**changes) for lm in self.fallbacks)
        return copied


class FallbackLine:
    """The turns of one call."""

    def __init__(self, lm: FallbackLM) -> None:
        self._lms = (lm, *lm.fallbacks)
        self._at = 0
        self._turn = FallbackTurn()
        self._first: Exception | None = None
        self._reason = ""

    def __iter__(self) -> Iterator[tuple[FallbackLM, FallbackTurn]]:
        for at, lm in enumerate(self._lms):
            self._at = at
            before = self._lms[at - 1].model if at else None
            self._turn = FallbackTurn(at + 1 < len(self._lms), before, self._reason)
            yield lm, self._turn

    def origin(self, lm: FallbackLM, messages: Any) -> AbstractContextManager[None]:
        """Return a block in which DSPy takes a fallback's call for the adapter's own, which 3.4 lets pass messages."""
        return nullcontext() if self._at == 0 else as_the_adapters_call(lm, messages)

    def failed(self, error: Exception) -> None:
        """Go on to the next one, or raise what the caller gets: the first of such failures."""
        is_no_answer = type(error) is dspy_errors.LMProviderError
        if self._turn.was_shown or not (is_no_answer or isinstance(error, _PASSED_ON)):
            raise error
        self._first = self._first or error
        self._reason = type(error).__name__
        if not self._turn.has_alternative:
            raise self._first
