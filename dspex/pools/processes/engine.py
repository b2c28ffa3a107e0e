"""Run a supervisor's background thread: what its `poller` and its `timers` bring, and what others leave to it.

Handlers run on it and must not block; user code (tools, subscribers, log handlers) never does. If the engine dies, it
says so to every pool, whose calls then fail with PoolClosed (C12).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Protocol

from .poller import Poller
from .timers import Timers

LATE = 0.05  # seconds that a tick may come too late before the engine takes it that it was held up


class TimedPart(Protocol):
    """A part with a `due` time that other threads may change; they call `wake_by`."""

    @property
    def due(self) -> float: ...

    def tick(self, now: float) -> None: ...


class Engine:
    """A loop that polls and keeps time. `call_soon` and `wake_by` may be used from any thread; the rest only on it."""

    def __init__(self, name: str = "dspex-engine") -> None:
        self.poller = Poller()
        self.timers = Timers()
        self._soon: deque[Callable[[], None]] = deque()
        self._last: list[Callable[[], None]] = []
        self._timed: list[TimedPart] = []
        self._at_death: list[Callable[[BaseException], None]] = []
        self._sleeps_until = -inf
        self._is_noticed = False
        self._is_stopping = False
        self._name = name
        self._thread: threading.Thread | None = None  # made by `start`: one from before a fork could not be started
        self._ident = 0

    # -- any thread --

    def start(self) -> None:
        """Open what it waits with, and start the thread.

        Raises:
            OSError: no descriptors are left.
            RuntimeError: no threads are left; nothing is left open.
        """
        self.poller.open()
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # "can't start new thread"
            self.poller.close()
            raise
        self._thread = thread

    @property
    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def is_current(self) -> bool:
        return threading.get_ident() == self._ident

    def call_soon(self, function: Callable[[], None]) -> None:
        """Run `function` on the engine's thread. Takes no lock: finalizers may use it."""
        self._soon.append(function)
        if self._sleeps_until != -inf and not self.is_current:  # awake, it looks once more before it sleeps
            self.poller.wake()

    def wake_by(self, due: float) -> None:
        """Wake the engine in time for a tick at `due`, if it would sleep beyond that."""
        self._is_noticed = True  # for an engine that is about to sleep, and has asked everybody already
        if due < self._sleeps_until:
            self.poller.wake()

    def stop(self) -> None:
        """End the thread once the calls so far have run; waits a second at most."""
        self._is_stopping = True
        if self._thread is None:
            return
        self.poller.wake()
        if not self.is_current:
            self._thread.join(timeout=1.0)

    def after_fork(self) -> None:
        """In a forked child of the host: close what is the parent's, and unregister nothing, for the set is shared."""
        self.poller.close()

    # -- the engine's thread --

    def add_timed(self, timed: TimedPart) -> None:
        self._timed.append(timed)

    def on_death(self, function: Callable[[BaseException], None]) -> None:
        """Call `function(cause)` if this thread ends by an exception."""
        self._at_death.append(function)

    def before_sleep(self, function: Callable[[], None]) -> None:
        """Run `function` right before the engine sleeps: to wake threads, which could not run beside it anyway."""
        self._last.append(function)

    def _run(self) -> None:
        self._ident = threading.get_ident()
        try:
            while not (self._is_stopping and not self._soon):
                self._run_once(self._keep_time())
            self._do_last()
        except BaseException as error:  # nobody above can handle it: every caller must learn of it instead
            self._do_last()
            for function in self._at_death:
                function(error)
            raise
        finally:
            self.poller.close()

    def _run_once(self, patience: float) -> bool:
        """Wait for events and handle them; False if there were none."""
        self._do_last()
        had_any = self.poller.handle_events(0.0 if self._soon else patience)
        self._sleeps_until = -inf
        while self._soon:
            self._soon.popleft()()
        return had_any

    def _keep_time(self) -> float:
        """Run what is due; return the seconds until the next. Other threads announce changes by `wake_by`."""
        while True:
            self._is_noticed = False
            self._sleeps_until = due = self._tick()
            if self._soon or self._is_stopping:
                return 0.0
            if not self._is_noticed:
                return -1 if due == inf else max(0.0, due - time.monotonic())

    def _tick(self) -> float:
        """Run what is due; return the time of what is due next."""
        now, due = time.monotonic(), self._next_due()
        if due > now:
            return due
        if due < now - LATE:
            now = self._catch_up(now)
        for timed in self._timed:
            if timed.due <= now:
                timed.tick(now)
        if self.timers.due <= now:
            self.timers.ring(now)
        return self._next_due()

    def _next_due(self) -> float:
        next_due = self.timers.due
        for timed in self._timed:
            if (due := timed.due) < next_due:
                next_due = due
        return next_due

    def _catch_up(self, now: float) -> float:
        """Take what came while this thread could not run (the host sat in C, or was stopped); return the time.

        Else workers that answered in time would be taken for silent, and killed.
        """
        while self._run_once(0.0) and time.monotonic() < now + LATE:
            pass
        return time.monotonic()

    def _do_last(self) -> None:
        if self._last:
            last, self._last = self._last, []
            for function in last:
                function()
