"""Threads for a run's plain functions: reused from step to step, abandoned where one does not end."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

Settle = Callable[[Any, BaseException | None], None]
_Job = tuple[contextvars.Context, Callable[[], Any], Settle]


class Threads:
    """Daemon threads, started as they are needed. Not a pool: a function that hangs must keep no other from running."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[SimpleQueue[_Job | None]] = []
        self._is_closed = False

    def start(self, function: Callable[[], Any], settle: Settle) -> None:
        """Call `function()` in the caller's contextvars, in another thread, and `settle(value, error)` there."""
        with self._lock:
            inbox = self._idle.pop() if self._idle else None
        if inbox is None:
            inbox = SimpleQueue()
            threading.Thread(target=self._serve, args=(inbox,), name="dspex-native-step", daemon=True).start()
        inbox.put((contextvars.copy_context(), function, settle))

    def close(self) -> None:
        """End the idle threads now and the others when their function returns."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for inbox in idle:
            inbox.put(None)

    def _serve(self, inbox: SimpleQueue[_Job | None]) -> None:
        while (job := inbox.get()) is not None:
            context, function, settle = job
            value, error = _outcome(context, function)
            with self._lock:
                is_last = self._is_closed
                if not is_last:
                    self._idle.append(inbox)  # before it is settled, so that the run's next step finds this thread
            settle(value, error)
            del job, context, function, settle, value, error  # an idle thread holds on to nothing of the user's
            if is_last:
                return


def _outcome(context: contextvars.Context, function: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return context.run(function), None
    except BaseException as error:  # also SystemExit: it is the caller's to see
        return None, error
