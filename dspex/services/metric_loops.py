"""Keep event loops for asynchronous metrics: one for each metric, so that one that blocks its loop stops no other.

A metric meets the same loop in each of its jobs, as clients that it holds on to need. One whose loop is blocked gets
another. Any thread.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from typing import Any

from ..loop_thread import LoopThread

PING_S = 1.0  # that a loop has to answer before it counts as blocked


class MetricLoops:
    """The loops of one process's metrics, each as long as its metric."""

    def __init__(self) -> None:
        self._loops: dict[int, LoopThread] = {}
        self._left: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
        self._shared = LoopThread("dspex-metrics")  # of metrics that cannot be watched

    def of(self, metric: Callable[..., Any]) -> LoopThread:
        """Return the loop of a metric."""
        owner = getattr(metric, "__self__", metric)  # a bound method is made anew each time
        found = self._loops.get(id(owner))
        if found is not None:
            return found
        try:
            weakref.finalize(owner, self._loops.pop, id(owner), None).atexit = False
        except TypeError:
            return self._shared
        return self._loops.setdefault(id(owner), LoopThread("dspex-metrics"))

    def has_left(self, metric: Callable[..., Any], loop: asyncio.AbstractEventLoop) -> bool:
        """Whether this was a metric's loop, and is so no more."""
        return loop in self._left and self.of(metric).running() is not loop

    def renew_if_blocked(self, metric: Callable[..., Any]) -> None:
        """Look whether a metric's loop still runs, and give it another if not; returns at once."""
        kept = self.of(metric)
        answered = threading.Event()
        loop = kept.running()
        loop.call_soon_threadsafe(answered.set)

        def look() -> None:
            if not answered.wait(PING_S):
                self._left.add(loop)
                kept.stop()  # it ends if it comes back; the next use starts another

        threading.Thread(target=look, name="dspex-metric-loop-check", daemon=True).start()
