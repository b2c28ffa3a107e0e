"""Interrupt cancelled calls, again and again, until they end: user code may swallow an interrupt.

The main thread is interrupted by a signal, which ends system calls too; others by an exception that Python raises in
them. The leader does it, between two reads.
"""

from __future__ import annotations

import select
import signal
import threading
import time

from .running_call import RunningCall

INTERRUPT_EVERY = 0.1  # seconds


class Interrupter:
    """The cancelled calls of a worker. `calls_on_main`: calls run on the main thread, but for nested ones."""

    def __init__(self, *, calls_on_main: bool) -> None:
        self._calls_on_main = calls_on_main
        self._main = threading.main_thread().ident or 0
        self._on_main: RunningCall | None = None
        self.cancelled: dict[int, RunningCall] = {}

    def install(self) -> None:
        """Take SIGUSR1, if calls run on the main thread, which must be the caller."""
        if self._calls_on_main:
            signal.signal(signal.SIGUSR1, self._on_signal)

    # -- the executing thread --

    def begin(self, running: RunningCall) -> None:
        """Note that the calling thread is about to run this call."""
        if threading.get_ident() == self._main:
            self._on_main = running  # set and cleared by this thread alone, see `_on_signal`

    def end(self, running: RunningCall) -> None:
        """Interrupt this call no more: it has been answered."""
        if self._on_main is running:
            self._on_main = None
        running.has_ended = True
        self.cancelled.pop(running.id, None)

    def _on_signal(self, *_: object) -> None:
        """Interrupt only if the call that runs now is the one that was cancelled, and is inside user code."""
        running = self._on_main
        if running is not None:
            running.user_code.interrupt_here()

    # -- the leader --

    def cancel(self, running: RunningCall) -> None:
        """Wake the call's waits now, and interrupt it from now on unless it ends."""
        running.interrupt_at = time.monotonic() + INTERRUPT_EVERY
        self.cancelled[running.id] = running
        if running.has_ended:  # since the leader found it: its own `end` may have come before
            self.cancelled.pop(running.id, None)
        running.cancel()

    def work_until(self, readable: select.poll) -> None:
        """Interrupt until there is something to read, or nothing to interrupt.

        The next interrupt comes in time, however often there is something to read in between.
        """
        while cancelled := tuple(self.cancelled.values()):
            now = time.monotonic()
            for running in cancelled:
                if now >= running.interrupt_at:
                    running.interrupt_at = now + INTERRUPT_EVERY
                    self._interrupt(running)
            wait = min(running.interrupt_at for running in cancelled) - time.monotonic()
            if readable.poll(max(0.0, wait) * 1000):
                return

    def _interrupt(self, running: RunningCall) -> None:
        if self._calls_on_main and running is self._on_main:
            signal.pthread_kill(self._main, signal.SIGUSR1)
        elif running is not self._on_main or not self._calls_on_main:
            running.user_code.interrupt()
