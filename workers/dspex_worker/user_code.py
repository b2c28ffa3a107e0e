"""Mark the stretches of a call that run the user's code: only there may an interrupt reach its thread.

An interrupt is an exception raised between two bytecodes. `is_inside` is set and cleared by the executing thread alone,
and everything that belongs to the runtime (writing a frame, waiting for an answer) happens outside.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Generator

from .failure import Cancelled

_SET_ASYNC_EXC = ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
_raise_in = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.py_object)(_SET_ASYNC_EXC)
_take_back = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)(_SET_ASYNC_EXC)  # with NULL


class UserCode:
    """Where one call's user code runs, and whether it has been interrupted."""

    __slots__ = ("_lock", "_thread", "is_cancelled", "is_inside", "was_interrupted")

    def __init__(self) -> None:
        self.is_cancelled = False
        self.is_inside = False
        self.was_interrupted = False
        self._thread = 0
        self._lock = threading.Lock()

    # -- the executing thread --

    def enter(self) -> None:
        """Step into user code.

        Raises:
            Cancelled: the call was cancelled before.
        """
        self._thread = threading.get_ident()
        self.is_inside = True
        if self.is_cancelled:
            self.leave()
            raise Cancelled

    def leave(self) -> None:
        """Step out of user code; once this returns, no interrupt reaches the thread any more."""
        while True:
            try:
                with self._lock:
                    self.is_inside = False
                    if self.was_interrupted:
                        _take_back(self._thread, None)
                return
            except Cancelled:
                continue  # it struck on the way out

    @contextlib.contextmanager
    def outside(self) -> Generator[None]:
        """Leave user code for a while, from whichever thread of the call."""
        if not (self.is_inside and threading.get_ident() == self._thread):
            yield
            return
        self.leave()
        try:
            yield
        finally:
            self.enter()

    def interrupt_here(self) -> None:
        """Raise `Cancelled` in the calling thread, a signal handler's, if the call is cancelled and inside."""
        if self.is_cancelled and self.is_inside:
            self.was_interrupted = True
            raise Cancelled

    # -- the leader --

    def interrupt(self) -> None:
        """Raise `Cancelled` in the executing thread while it runs Python code of the user."""
        with self._lock:
            if self.is_inside:
                self.was_interrupted = True
                _raise_in(self._thread, Cancelled)
