"""The time that a metric may take for one example."""

from __future__ import annotations

import math

from ...errors import SettingsError

METRIC_TIMEOUT = 600.0  # seconds


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
