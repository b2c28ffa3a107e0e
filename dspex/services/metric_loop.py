"""Run an asynchronous metric on one event loop, each call with a limit; one that blocks the loop stops no other.

Its calls meet the same loop each time, as clients that they hold on to need. A loop that answers nothing any more is
*left* to the call that blocks it, and another takes its place: calls that wait to begin go there at once, those under
way when their own time is up. The thread of a loop that was left ends if that call comes back.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any

from ..loop_thread import LoopThread
from .metric_limit import LEFT, MetricLimit
from .user_threads import as_error

LOOK_S = 1.0  # seconds between looks at a call that has not begun
PING_S = 1.0  # that a loop has to answer, or it counts as blocked
Submit = Callable[[Coroutine[Any, Any, Any]], "Future[Any]"]


class MetricLoop:
    """The event loop of an asynchronous metric. Any number of loops may wait for its results."""

    def __init__(self) -> None:
        self._kept = LoopThread("dspex-metric-loop")
        self._lock = threading.Lock()

    async def result(self, begin: Callable[[], Awaitable[Any]], limit: MetricLimit) -> Any:
        """Return what an asynchronous metric gives; its time counts from when it begins.

        Raises:
            MetricTimeout: that is over the limit; the call is cancelled.
            TooManyToolsLeft: too many threads of this process are held by metrics that nobody waits for.
        """
        while True:
            limit.require_threads()
            kept = self._kept
            call = LoopCall(begin, limit, kept.submit)
            try:
                if await call.has_ended(LOOK_S) or await self._is_kept_waiting(call, kept):
                    return call.result()
            finally:
                call.waiting.cancel()

    def stop(self) -> None:
        """End the loop."""
        self._kept.stop()

    async def _is_kept_waiting(self, call: LoopCall, kept: LoopThread) -> bool:
        """Wait for the call; False if its loop is blocked by another, so that it must begin anew elsewhere.

        Raises:
            MetricTimeout: its time is up.
        """
        while not await call.has_ended(LOOK_S):
            is_over = call.is_over
            if call.has_begun and not is_over:
                continue
            if await _answers(kept):
                if is_over:
                    raise call.limit.exceeded()
                continue
            self._leave(kept)
            if call.is_running:  # it is the one that blocks
                raise call.limit.exceeded()
            if not call.waiting.done():
                return False
        return True

    def _leave(self, kept: LoopThread) -> None:
        with self._lock:
            if self._kept is kept:
                kept.rename(LEFT)
                self._kept = LoopThread("dspex-metric-loop")


class LoopCall:
    """One call of an asynchronous metric, on the loop that `submit` gives it to."""

    def __init__(self, begin: Callable[[], Awaitable[Any]], limit: MetricLimit, submit: Submit) -> None:
        self.limit = limit
        self._begun_at: float | None = None
        self._coroutine: Any = self._run(begin)
        self.waiting = asyncio.wrap_future(submit(self._coroutine))

    @property
    def has_begun(self) -> bool:
        return self._begun_at is not None

    @property
    def is_over(self) -> bool:
        """Whether its time is up."""
        return self._begun_at is not None and time.monotonic() >= self._begun_at + self.limit.seconds

    @property
    def is_running(self) -> bool:
        """Whether the loop is in the midst of one of its steps."""
        return bool(self._coroutine.cr_running)

    async def has_ended(self, within_s: float) -> bool:
        """Wait until it has ended, for no longer than that, or than its time."""
        left_s = within_s if self._begun_at is None else self._begun_at + self.limit.seconds - time.monotonic()
        await asyncio.wait({self.waiting}, timeout=max(0.0, min(within_s, left_s)))
        return self.waiting.done()

    def result(self) -> Any:
        """Return what it gave; it has ended."""
        value, error = (None, as_error(asyncio.CancelledError())) if self.waiting.cancelled() else self.waiting.result()
        if error is not None:
            raise error
        return value

    async def _run(self, begin: Callable[[], Awaitable[Any]]) -> tuple[Any, Exception | None]:
        self._begun_at = time.monotonic()
        try:
            return await begin(), None
        except BaseException as error:  # also SystemExit, which would end the loop
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            return None, as_error(error)


async def result_on(loop: asyncio.AbstractEventLoop, begin: Callable[[], Awaitable[Any]], limit: MetricLimit) -> Any:
    """Return what an asynchronous metric gives on its caller's own loop.

    Raises:
        MetricTimeout: it takes longer than its limit; it is cancelled.
    """
    call = LoopCall(begin, limit, lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop))
    try:
        while not await call.has_ended(LOOK_S):
            if call.is_over:
                raise limit.exceeded()
        return call.result()
    finally:
        call.waiting.cancel()


async def _answers(kept: LoopThread) -> bool:
    ping = asyncio.wrap_future(kept.submit(asyncio.sleep(0)))
    await asyncio.wait({ping}, timeout=PING_S)
    return not ping.cancel()
