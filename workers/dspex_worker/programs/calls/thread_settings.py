"""Let threads that user code starts in a call belong to that call: its LM, its settings, its callbacks to the parent.

A thread begins with an empty context, and in a plain DSPy program finds what `dspy.configure` set for the process. In a
worker that is the call's, so it is passed on: to a thread when it is started, to an executor's when work is submitted.
"""

from __future__ import annotations

import contextvars
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import wraps
from typing import Any

import dspy

from .call_context import SETTING

_OURS = "dspex_worker"


def install() -> None:
    """Pass the call's context on to threads, in this process from now on."""
    threading.Thread.start = _starting(threading.Thread.start)  # type: ignore[method-assign]
    ThreadPoolExecutor.submit = _submitting(ThreadPoolExecutor.submit)  # type: ignore[method-assign]


def _starting(start: Any) -> Any:
    @wraps(start)
    def start_within_call(self: threading.Thread) -> None:
        if _is_in_call() and not _is_ours(self):
            context, run = contextvars.copy_context(), self.run
            self.run = lambda: context.run(run)  # type: ignore[method-assign]
        start(self)

    return start_within_call


def _submitting(submit: Any) -> Any:
    @wraps(submit)
    def submit_within_call(self: ThreadPoolExecutor, function: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        if not _is_in_call():
            future: Future[Any] = submit(self, function, *arguments, **named)
            return future
        within = contextvars.copy_context().run
        # In no context: a thread that is started for it serves other calls later.
        submitted: Future[Any] = contextvars.Context().run(submit, self, within, function, *arguments, **named)
        return submitted

    return submit_within_call


def _is_in_call() -> bool:
    return dspy.settings.get(SETTING) is not None


def _is_ours(thread: threading.Thread) -> bool:
    """Whether the worker itself starts it: such a thread serves many calls, and must begin in none."""
    target = getattr(thread, "_target", None)
    home = getattr(target, "__module__", None) or type(getattr(target, "__self__", None)).__module__
    return home.partition(".")[0] == _OURS
