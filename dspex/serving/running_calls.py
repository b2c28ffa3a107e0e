"""Count the requests that run, refuse more than there may be, and end them when the server stops. One event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

from .request_refused import RequestRefused

T = TypeVar("T")

END_WITHIN = 2.0  # seconds for calls that were ended to say so


class RunningCalls:
    """The requests of one application that ask programs; `limit` of them may run at a time."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.count = 0
        self.is_draining = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_hurried = asyncio.Event()
        self._is_idle = asyncio.Event()

    @contextlib.contextmanager
    def admitted(self) -> Generator[None]:
        """Count a request for the block.

        Raises:
            RequestRefused: the server stops, or as many requests run as may.
        """
        if self.is_draining:
            raise stopping()
        if self.count >= self.limit:
            detail = f"{self.count} requests run and the limit is {self.limit}. Try again soon."
            raise RequestRefused(503, "Too many requests run", detail)
        self.count += 1
        self._is_idle.clear()
        try:
            yield
        finally:
            self.count -= 1
            if not self.count:
                self._is_idle.set()

    def task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Return a task that ends, cancelled, when the server gives its requests up."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def drain(self, grace: float) -> int:
        """Take no more requests, wait `grace` seconds for those that run, and end the others; return how many."""
        self.is_draining = True
        if not self.count:
            return 0
        waits = [asyncio.ensure_future(event.wait()) for event in (self._is_idle, self._is_hurried)]
        await asyncio.wait(waits, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        cut = self.count
        for task in list(self._tasks):
            task.cancel()
        await asyncio.wait(waits[:1], timeout=END_WITHIN)
        for wait in waits:
            wait.cancel()
        return cut

    def hurry(self) -> None:
        """End the grace of a `drain` now, and of one that comes."""
        self._is_hurried.set()


def stopping() -> RequestRefused:
    """Return what a request gets that comes while the server stops, or that the stop ended."""
    detail = "The server is stopping: ask another, or try again."
    return RequestRefused(503, "The server is stopping", detail, {"connection": "close"})
