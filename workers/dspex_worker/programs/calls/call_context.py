"""Find the call that a piece of DSPy runs for, also in threads that DSPy starts.

DSPy's executors (Evaluate, Parallel, Refine) start threads without contextvars, but carry the settings of
`dspy.context` along. So the call's context travels as such a setting, and `in_call` passes it on to the user's code.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import dspy
from dspy.utils.callback import BaseCallback
from dspy.utils.usage_tracker import UsageTracker

from ...context import Context, current, running_context
from ...failure import Failure
from ..dspy_errors import ParentRefused

T = TypeVar("T")
SETTING = "dspex_call"  # names among DSPy's settings
USAGE = "dspex_usage"
OBSERVER = "dspex_observer"
HISTORIES = "dspex_histories"


def running() -> Context:
    """Return the context of the call that this thread works for.

    Raises:
        LookupError: it works for none (a thread that user code started by itself, outside DSPy).
    """
    context: Context | None = dspy.settings.get(SETTING)
    return current() if context is None else context


def in_call(context: Context, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """Run `function` so that `dspex_worker.bridge.current()` answers in whichever thread this is."""
    token = running_context.set(context)
    try:
        return function(*arguments, **named)
    finally:
        running_context.reset(token)


@dataclass
class CallUsage:
    """A command's LM calls: how many requests, how many the cache answered, what failed, whoever swallowed it."""

    requests: int = 0
    cached: int = 0
    lm_errors: int = 0
    last: Exception | None = None
    refused: Failure | None = None  # the parent will carry no request any more: a budget is spent, say
    finish_reason: str = ""  # of the last answer
    truncated: int = 0  # answers that were cut at length
    tokens: UsageTracker = field(default_factory=UsageTracker)  # one for all threads: see shared_usage.py
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _asked: dict[int, float] = field(default_factory=dict)  # when each LM call under way began
    _next: itertools.count[int] = field(default_factory=itertools.count)

    def asking(self) -> int:
        """Note that an LM call begins; return its number for `answered`."""
        number = next(self._next)
        self._asked[number] = time.monotonic()
        return number

    def waiting(self) -> tuple[int, float]:
        """Return how many LM calls are under way, and for how many seconds the longest has been."""
        begun = list(self._asked.values())
        return len(begun), time.monotonic() - min(begun) if begun else 0.0

    @property
    def is_cached(self) -> bool:
        """Whether the command asked LMs, and the cache answered every time."""
        return 0 < self.requests == self.cached

    def answered(self, requests: int, cached: int, number: int) -> None:
        """Count an LM call's answered requests, and those of them that the cache answered."""
        self._asked.pop(number, None)
        with self._lock:
            self.requests += requests
            self.cached += cached

    def ended(self, finish_reason: str) -> None:
        """Note why an answer ended."""
        with self._lock:
            self.finish_reason = finish_reason
            self.truncated += finish_reason == "length"

    def failed(self, error: Exception) -> None:
        """Count an LM call that failed."""
        with self._lock:
            self.lm_errors += 1
            self.last = error
            if isinstance(error, ParentRefused):
                self.refused = error.failure

    def record_error(self, error: Exception) -> None:
        """Keep an error that is not an LM's, and that DSPy may swallow."""
        with self._lock:
            self.last = error


class ErrorRecorder(BaseCallback):  # type: ignore[misc]
    """Records the error of every module that fails: BestOfN and Refine swallow what their attempts raise."""

    def __init__(self, call_usage: CallUsage) -> None:
        self._call_usage = call_usage

    def on_module_end(self, call_id: str, outputs: Any | None, exception: BaseException | None = None) -> None:
        if isinstance(exception, Exception):
            self._call_usage.record_error(exception)
