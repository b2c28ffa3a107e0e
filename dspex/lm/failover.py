"""Which LM is asked next when one failed: the same rule on both routes (the workers have their copy of it)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..errors import LMAuthError, LMBillingError, LMError, LMUnsupportedModelError
from ..events import Name
from .record import LM

# Failures after which another LM may do better. Not: a request that is wrong in itself.
_PASSED_ON = (LMAuthError, LMBillingError, LMUnsupportedModelError)


class Failover:
    """An LM and its fallbacks, in order; iterate over it and report each failure."""

    def __init__(self, lm: LM, emit: Callable[..., Any]) -> None:
        self._lms = (lm, *lm.fallbacks)
        self._emit = emit
        self._at = 0
        self._first: LMError | None = None

    def __iter__(self) -> Iterator[LM]:
        for at, lm in enumerate(self._lms):
            self._at = at
            yield lm

    @property
    def is_last(self) -> bool:
        """Whether nobody is left to ask after this one."""
        return self._at + 1 >= len(self._lms)

    def failed(self, error: LMError) -> None:
        """Go on to the next one.

        Raises:
            LMError: this failure if it is the request's own, or the first one when nobody is left.
        """
        if not may_pass(error):
            raise error
        self._first = self._first or error
        if self.is_last:
            raise self._first
        asked, following = self._lms[self._at], self._lms[self._at + 1]
        self._emit(Name.LM_FAILED_OVER, model=asked.model, to=following.model, reason=type(error).__name__)

    def exhausted(self) -> LMError:
        """The failure to report: the first."""
        assert self._first is not None
        return self._first


def may_pass(error: LMError) -> bool:
    """Whether another LM may be asked after this failure."""
    return error.retryable == "now" or isinstance(error, _PASSED_ON)
