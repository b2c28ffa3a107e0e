"""Bound the time that a metric of this process may take: it runs in a thread of its own, which is left when that is up.

A thread cannot be ended from outside. The job that a `HungMetric` ends has its worker replaced.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from .metric_scores import HungMetric, Metric, title_of


def bounded(metric: Metric, spec: Mapping[str, Any]) -> Metric:
    """Return the metric, with the limit of its spec if it has one."""
    limit_s = spec.get("limit_s")
    if limit_s is None:
        return metric

    def limited(*given: Any) -> Any:
        outcome: Future[Any] = Future()
        arguments = (outcome, metric, given)
        run = contextvars.copy_context().run
        threading.Thread(target=run, args=(_answer, *arguments), name="dspex-metric", daemon=True).start()
        try:
            return outcome.result(limit_s)
        except TimeoutError:
            if outcome.done():  # the metric's own
                raise
            raise HungMetric(title_of(spec), given[0], limit_s) from None

    return limited


def _answer(outcome: Future[Any], metric: Metric, given: tuple[Any, ...]) -> None:
    try:
        outcome.set_result(metric(*given))
    except BaseException as error:  # it belongs to the thread that waits
        outcome.set_exception(error)
