"""`CancelFlag`: one thread sets it, others wake up; how what blocks in a thread is cancelled from another.

A flag may be put over whatever a thread does (`cancelled_by`); what blocks there looks for it (`current_flag`).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator
from contextvars import ContextVar

_over: ContextVar[CancelFlag | None] = ContextVar("dspex_cancel_flag", default=None)


class CancelFlag:
    """Set once something is not wanted any more; calls what can stop it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self.is_set = False

    def set(self) -> None:
        with self._lock:
            self.is_set = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def on_set(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` when it is set, or now if it is; return a function that takes that back."""
        with self._lock:
            if not self.is_set:
                self._callbacks.append(callback)
                return lambda: self._forget(callback)
        callback()
        return _nothing

    def _forget(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)


@contextlib.contextmanager
def cancelled_by(flag: CancelFlag) -> Generator[None]:
    """Let the flag cancel what blocks in the block, on this thread or in its contextvars."""
    token = _over.set(flag)
    try:
        yield
    finally:
        _over.reset(token)


def current_flag() -> CancelFlag | None:
    """Return the flag that is over what this thread or task does."""
    return _over.get()


def _nothing() -> None:
    """Do nothing: the flag is set already."""
