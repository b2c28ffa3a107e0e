"""Count the requests that run, refuse more than there may be, and end them when the server stops.

One event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

from .refusal import Refusal

T = TypeVar("T")

LOOK = 0.05  # seconds between looks at the running calls


class RunningCalls:
    """The requests of one application that ask programs; `limit` of them may run at a time."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.count = 0
        self.is_draining = False
        self._tasks: set[asyncio.Task[Any]] = set()

    @contextlib.contextmanager
    def admitted(self) -> Generator[None]:
        """Count a request for the block.

        Raises:
            Refusal: the server stops, or as many requests run as may.
        """
        if self.is_draining:
            raise stopping()
        if self.count >= self.limit:
            raise Refusal(
                503, "Too many requests run", f"{self.count} requests run and the limit is {self.limit}. Try again soon."
            )
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1

    def task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Return a task that ends, cancelled, when the server gives its requests up."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def drain(self, grace: float) -> int:
        """Take no more requests, wait for those that run, and end them after `grace` seconds; return how many."""
        self.is_draining = True
        deadline = asyncio.get_running_loop().time() + grace
        while self.count and asyncio.get_running_loop().time() < deadline and not self.is_hurried:
            await asyncio.sleep(LOOK)
        cut = self.count
        for task in list(self._tasks):
            task.cancel()
        return cut

    is_hurried = False  # a second signal: the grace is over


def stopping() -> Refusal:
    """Return what a request gets that comes while the server stops, or that the stop ended."""
    return Refusal(503, "The server is stopping", "The server is stopping: ask another, or try again.", {"connection": "close"})
