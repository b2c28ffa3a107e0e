"""Call a metric of this process, plain or asynchronous, with a limit."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from dspex_worker.user_calls import Mismatch, is_asynchronous, require_result

from ..errors import SettingsError
from .metric_limit import MetricLimit
from .metric_loop import MetricLoop, result_on
from .user_threads import AT_ONCE, UserThreads


class UnusableMetric(SettingsError):
    """A metric that can score no example, whatever the program answers. Workers know it by its name."""


class MetricRunner:
    """Calls one metric: a plain one in threads, an asynchronous one on its caller's event loop, or on `loop`."""

    def __init__(self, metric: Callable[..., Any], loop: MetricLoop, at_once: int = AT_ONCE) -> None:
        self._metric = metric
        self._loop = loop
        self._threads = UserThreads(at_once)

    async def result(
        self, called: Callable[[], Any], limit: MetricLimit, on: asyncio.AbstractEventLoop | None = None
    ) -> Any:
        """Return what the metric gives; `called` calls it, `on` is the loop of who asks.

        Raises:
            MetricTimeout: it takes longer than its limit.
            TooManyToolsLeft: too many threads of this process are held by functions that nobody waits for.
            UnusableMetric: it is a generator.
        """
        begin = called
        if not is_asynchronous(self._metric):
            value = usable_result(await self._threads.result(called, limit), self._metric)
            if not inspect.isawaitable(value):
                return value
            begin = lambda: value  # noqa: E731 - what no one could see to be asynchronous
        return await (self._loop.result(begin, limit) if on is None else result_on(on, begin, limit))

    def stop(self) -> None:
        """End the threads as they become idle."""
        self._threads.stop()


def usable_result(value: Any, metric: Callable[..., Any]) -> Any:
    """Return what a metric gave; a coroutine is to be awaited.

    Raises:
        UnusableMetric: it is a generator.
    """
    try:
        return require_result(value, "metric", metric, may_await=True)
    except Mismatch as error:
        raise UnusableMetric(str(error), key="metric") from error
