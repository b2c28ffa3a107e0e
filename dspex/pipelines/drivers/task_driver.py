"""Drive a pipeline run on the caller's event loop: `arun`, `astream`."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ...cancel_flag import CancelFlag
from .driver import Branch, BranchEnd, Expired, innermost, left, settle
from .threads import Threads


class TaskDriver:
    """Awaits on the running event loop. Plain functions run in threads beside it, so that they cannot block it."""

    def __init__(self) -> None:
        self.cancel = CancelFlag()
        self._threads = Threads()
        self._left_behind: set[asyncio.Task[Any]] = set()

    def check(self) -> None:
        """Do nothing: a cancelled task gets CancelledError at its next await."""

    def close(self) -> None:
        self._threads.close()

    async def call(self, function: Callable[[], Any], deadline: float) -> Any:
        timer = asyncio.timeout(left(deadline))
        try:
            async with timer:
                if inspect.iscoroutinefunction(innermost(function)):
                    return await function()
                value = await self._in_thread(function)
                return await value if inspect.isawaitable(value) else value
        except TimeoutError:
            if timer.expired():
                raise Expired from None
            raise

    async def do(
        self, blocking: Callable[[], Any], awaiting: Callable[[], Awaitable[Any]], *, heeds_cancel: bool
    ) -> Any:
        return await awaiting()

    async def gather(self, jobs: Sequence[Branch], *, limit: int, grace: float) -> list[BranchEnd]:
        places = asyncio.Semaphore(limit)
        order: list[asyncio.Task[Any]] = []

        async def one(job: Branch) -> Any:
            async with places:
                return await job(self)

        tasks = [asyncio.create_task(one(job)) for job in jobs]
        for task in tasks:
            task.add_done_callback(order.append)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            await self._end(tasks, grace)
        return [_ending(task, order) for task in tasks]

    async def _in_thread(self, function: Callable[[], Any]) -> Any:
        # Not the loop's executor: `asyncio.run` joins its threads at the end, and one left behind may never end.
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def deliver(value: Any, error: BaseException | None) -> None:
            try:
                loop.call_soon_threadsafe(settle, future, value, error)
            except RuntimeError:
                pass  # the loop is closed: nobody waits

        self._threads.start(function, deliver)
        return await future

    async def _end(self, tasks: Sequence[asyncio.Task[Any]], grace: float) -> None:
        """Cancel what still runs and give it `grace`; what does not end then is left to end by itself."""
        for task in tasks:
            task.cancel()
        if running := [task for task in tasks if not task.done()]:
            _, stubborn = await asyncio.wait(running, timeout=grace)
            for task in stubborn:
                self._left_behind.add(task)
                task.add_done_callback(self._discard)

    def _discard(self, task: asyncio.Task[Any]) -> None:
        self._left_behind.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not report it


def _ending(task: asyncio.Task[Any], order: list[asyncio.Task[Any]]) -> BranchEnd:
    if not task.done() or task.cancelled():
        return BranchEnd(is_cancelled=True)
    error = task.exception()
    if error is None:
        return BranchEnd(task.result())
    return BranchEnd(error=error, rank=order.index(task) if task in order else len(order))
