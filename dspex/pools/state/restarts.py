"""Count restarts against a budget, and back off (DESIGN §5 `restart_budget`). Pure.

Only *early* deaths count: of workers that answered fewer than ten calls. A worker that worked and died is
replaced at once; workers that cannot live make the pool degraded, and are tried again ever more slowly.
"""

from __future__ import annotations

from collections import deque

FIRST_WAIT = 0.1
LONGEST_WAIT = 30.0
ENOUGH_CALLS = 10  # answered: the death of a worker that answered so many is not early


class Restarts:
    """Deaths against a budget of `deaths` in `seconds`."""

    def __init__(self, deaths: int, seconds: float) -> None:
        self._budget = deaths
        self.period = seconds
        self._deaths: deque[float] = deque()
        self._in_a_row = 0
        self.is_degraded = False
        self.not_before = 0.0

    def adopt(self, deaths: int, seconds: float) -> None:
        """Count against another budget from now on."""
        self._budget = deaths
        self.period = seconds

    @property
    def recent(self) -> int:
        return len(self._deaths)

    @property
    def calm_at(self) -> float:
        """Return when a worker that lives now proves that workers can live."""
        return self._deaths[-1] + self.period if self._deaths else 0.0

    def count_early_death(self, now: float, jitter: float) -> None:
        """Count a worker that died before it did any work; `jitter` scales the wait before the next start."""
        self._deaths.append(now)
        while self._deaths and self._deaths[0] <= now - self.period:
            self._deaths.popleft()
        self._in_a_row += 1
        if len(self._deaths) >= self._budget:
            self.is_degraded = True
        if self._in_a_row > 1 or self.is_degraded:
            wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(self._in_a_row, 20)) * jitter
            self.not_before = max(self.not_before, now + wait)

    def uncount_last(self) -> None:
        """Uncount the last early death: a call killed the worker."""
        if self._deaths and not self.is_degraded:
            self._deaths.pop()
            self._in_a_row = max(0, self._in_a_row - 1)

    def worked(self) -> None:
        """Trust workers again: one answered enough calls, or lived long enough."""
        if self._in_a_row or self.is_degraded:
            self._in_a_row = 0
            self._deaths.clear()
            self.is_degraded = False
            self.not_before = 0.0

    def wait(self, now: float) -> float:
        """Return the seconds until the next start may be tried."""
        return max(0.0, self.not_before - now)
