"""The time that a metric may take for one example, and the error of one that takes longer."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

from ..errors import MetricTimeout, SettingsError, TooManyToolsLeft

METRIC_TIMEOUT = 600.0  # seconds
LEFT = "dspex-left"  # the name of a thread whose function goes on though nobody waits for it
LEFT_MOST = 128  # such threads in this process; each holds what its function holds


@dataclass(frozen=True, slots=True)
class MetricLimit:
    """What bounds one call of a metric, and what its error says."""

    metric: str
    example: str
    seconds: float = METRIC_TIMEOUT  # math.inf is no limit
    pool: str = "native"

    def exceeded(self) -> MetricTimeout:
        """Return the error of a metric that takes longer."""
        return MetricTimeout(self.metric, example=self.example, limit=self.seconds, left=left_threads())

    def require_threads(self) -> None:
        """Check that another metric may be begun.

        Raises:
            TooManyToolsLeft: too many of this process's threads were left.
        """
        left = left_threads()
        if left >= LEFT_MOST:
            raise TooManyToolsLeft(self.pool, left=left, limit=LEFT_MOST)


UNBOUNDED = MetricLimit("", "", math.inf)


def left_threads() -> int:
    """Return how many threads of this process are held by functions that nobody waits for."""
    return sum(thread.name == LEFT for thread in threading.enumerate())


def checked_limit(metric_timeout: float | None) -> float:
    """Return the limit in seconds; None is the usual one.

    Raises:
        SettingsError: it is no positive number.
    """
    if metric_timeout is None:
        return METRIC_TIMEOUT
    is_number = isinstance(metric_timeout, int | float) and not isinstance(metric_timeout, bool)
    if not is_number or math.isnan(metric_timeout) or metric_timeout <= 0:
        raise SettingsError(
            f"metric_timeout is {metric_timeout!r}; it is a positive number of seconds for one example, such as 60, or "
            f"math.inf for no limit.",
            key="metric_timeout",
        )
    return float(metric_timeout)
