"""Timers of the engine: a function each, called with the time once it is due. On the engine's thread only."""

from __future__ import annotations

from collections.abc import Callable
from math import inf


class Timers:
    """All timers of one engine."""

    def __init__(self) -> None:
        self.due = inf  # none is due earlier
        self._all: list[Timer] = []

    def add(self, timer: Timer) -> None:
        """Have the timer's function called from now on."""
        self._all.append(timer)

    def set_by(self, due: float) -> None:
        """Note that a timer is due at that time."""
        if due < self.due:
            self.due = due

    def ring(self, now: float) -> None:
        """Call the functions that are due."""
        for timer in tuple(self._all):
            timer.run_if_due(now)
        self.due = min([timer.due for timer in self._all], default=inf)


class Timer:
    """A function that the engine calls with the time once it is due. Set and cleared on the engine's thread only."""

    __slots__ = ("_function", "_timers", "due")

    def __init__(self, timers: Timers, function: Callable[[float], None]) -> None:
        self.due = inf
        self._timers = timers
        self._function = function
        timers.add(self)

    def set(self, due: float) -> None:
        """Call the function at `due`, and not at the time that was set before."""
        self.due = due
        self._timers.set_by(due)

    def clear(self) -> None:
        """Do not call the function."""
        self.due = inf

    def run_if_due(self, now: float) -> None:
        """Call the function if it is due."""
        if self.due <= now:
            self.due = inf
            self._function(now)
