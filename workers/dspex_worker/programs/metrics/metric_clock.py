"""Notice a metric of this process that takes longer for one example than it may.

A thread cannot be ended from outside: the parent ends the call, and this process with it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from typing import Any

from .metric_scores import ROW, Metric, title_of


class MetricClock:
    """When the calls of a metric that run began. Any thread."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self._title = title_of(spec)
        self._limit_s: float | None = spec.get("limit_s")
        self._began: dict[int, tuple[float, Any]] = {}  # with its example
        self._numbers = itertools.count()

    def timed(self, metric: Metric) -> Metric:
        """Return the metric, with its calls noted."""

        def timing(*given: Any) -> Any:
            number = next(self._numbers)
            self._began[number] = time.monotonic(), given[0]
            try:
                return metric(*given)
            finally:
                del self._began[number]

        return timing

    def overdue(self) -> dict[str, Any] | None:
        """Return what is said of a call that takes longer than it may, if there is one."""
        if self._limit_s is None:
            return None
        for began, example in list(self._began.values()):
            if time.monotonic() - began > self._limit_s:
                where = getattr(example, ROW, None)
                named = "an example of the optimizer's" if where is None else f"{where[0]}set[{where[1]}]"
                return {"metric": self._title, "example": named, "limit": self._limit_s}
        return None
