"""`JobClock`: how long a job has gone on, and how long it still may."""

from __future__ import annotations

import math
import time

from ...errors import CallTimeout


class JobClock:
    """Counts from when the job was made; `timeout` bounds it, in seconds."""

    def __init__(self, timeout: float | None) -> None:
        self.began = time.monotonic()
        self._timeout = timeout
        self._ended_at: float | None = None
        self._has_begun = False

    @property
    def now(self) -> float:
        """The time on `time.monotonic()`'s clock, which stands still once the job has ended."""
        return time.monotonic() if self._ended_at is None else self._ended_at

    @property
    def is_over(self) -> bool:
        return self._ended_at is not None

    def end(self) -> None:
        """Stand still."""
        self._ended_at = time.monotonic()

    def left(self, pool: str) -> float:
        """Return the seconds that are left.

        Raises:
            CallTimeout: none are.
        """
        if self._timeout is None:
            return math.inf
        if not self._has_begun:
            self._has_begun = True
            return self._timeout
        left = self._timeout - (time.monotonic() - self.began)
        if left <= 0:
            raise CallTimeout(pool, "optimize", timeout=self._timeout, phase="queued")
        return left
