"""Choose the LM to ask next when one failed: the same rule on both routes (workers have a copy of it)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import (
    LMAuthError,
    LMBillingError,
    LMError,
    LMProviderError,
    LMStreamAssemblyError,
    LMTransportError,
    LMUnsupportedModelError,
)
from ..events import Name
from .record import LM

# Failures after which another LM may do better. Not: a request that is wrong in itself.
_PASSED_ON = (LMAuthError, LMBillingError, LMStreamAssemblyError, LMTransportError, LMUnsupportedModelError)


class Failover:
    """An LM and its fallbacks, in order: `lm` is the one to ask now; `has_alternative` if another comes after it."""

    __slots__ = ("_emit", "_first", "_left", "has_alternative", "lm")

    def __init__(self, lm: LM, emit: Callable[..., Any]) -> None:
        self.lm = lm
        self._left = lm.fallbacks
        self.has_alternative = bool(lm.fallbacks)
        self._emit = emit
        self._first: LMError | None = None

    def failed(self, error: LMError) -> None:
        """Move on to the next LM.

        Raises:
            LMError: this failure if it is the request's own, or the first one when nobody is left.
        """
        if not may_fail_over(error):
            raise error
        self._first = self._first or error
        if not self._left:
            raise self._first
        failed, self.lm, self._left = self.lm, self._left[0], self._left[1:]
        self.has_alternative = bool(self._left)
        self._emit(Name.LM_FAILED_OVER, model=failed.model, to=self.lm.model, reason=type(error).__name__)


def may_fail_over(error: LMError) -> bool:
    """Return whether another LM may be asked after this failure."""
    is_no_answer = type(error) is LMProviderError  # a page, half a JSON: nothing that could be the request's fault
    return error.retryable == "now" or is_no_answer or isinstance(error, _PASSED_ON)
