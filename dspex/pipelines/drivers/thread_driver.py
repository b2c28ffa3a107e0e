"""Drive a pipeline run in threads: `run`, `stream`.

The methods of `ThreadDriver` are coroutines that never suspend: they block instead, so `completed(...)` runs such a
coroutine to its end in the calling thread, and no event loop is needed.
"""

from __future__ import annotations

import concurrent.futures
import contextvars
import inspect
import math
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from ...cancel_flag import CancelFlag
from ...loop_thread import LoopThread
from .cancel import BranchFlag, cancelled
from .driver import Branch, BranchEnd, Expired, innermost, is_cancellation, left, settle
from .threads import Threads


def completed(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that awaits only a ThreadDriver."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise RuntimeError("a step awaited something else than its driver")


class ThreadDriver:
    """Blocks the calling thread. `is_cancellable`: another thread may set the flag, and what waits must then end."""

    def __init__(
        self, loop: LoopThread, flag: BranchFlag, *, is_cancellable: bool, threads: Threads | None = None
    ) -> None:
        self.cancel: CancelFlag = flag
        self._threads = threads or Threads()
        self._loop = loop
        self._flag = flag
        self._is_cancellable = is_cancellable
        self.check = flag.check

    def close(self) -> None:
        self._threads.close()

    async def call(self, function: Callable[[], Any], deadline: float) -> Any:
        if inspect.iscoroutinefunction(innermost(function)):
            return self._await(_awaited(function), deadline)
        value = function() if deadline == math.inf else self._in_thread(function, deadline)
        if not inspect.isawaitable(value):
            return value
        return self._await(_awaited(lambda: value), deadline)

    async def do(
        self, blocking: Callable[[], Any], awaiting: Callable[[], Awaitable[Any]], *, heeds_cancel: bool
    ) -> Any:
        if heeds_cancel or not self._is_cancellable:
            return blocking()
        return self._await(_awaited(awaiting), math.inf)  # the rest can be cancelled only where it is awaited

    async def gather(self, jobs: Sequence[Branch], *, limit: int, grace: float) -> list[BranchEnd]:
        flag = BranchFlag(under=self._flag)
        team = _ThreadGroup(jobs, self._below(flag), flag)
        try:
            team.run(min(limit, len(jobs)))
            if flag.is_set:
                team.wait_for_rest(grace)
        except BaseException:  # KeyboardInterrupt in the waiting thread
            flag.set()
            team.wait_for_rest(grace)
            raise
        finally:
            flag.close()
        self.check()
        return team.endings()

    def _below(self, flag: BranchFlag) -> ThreadDriver:
        """Return the driver of this step's branches."""
        return ThreadDriver(self._loop, flag, is_cancellable=True, threads=self._threads)

    def _in_thread(self, function: Callable[[], Any], deadline: float) -> Any:
        """Run it where it can be left behind: a thread cannot be stopped, but it need not be waited for."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._threads.start(function, lambda value, error: settle(future, value, error))
        return self._wait(future, deadline)

    def _await(self, coroutine: Coroutine[Any, Any, Any], deadline: float) -> Any:
        return self._wait(self._loop.submit(coroutine), deadline)

    def _wait(self, future: concurrent.futures.Future[Any], deadline: float) -> Any:
        try:
            with self._flag.calling(lambda: _cancel(future)):
                return future.result(left(deadline))
        except concurrent.futures.CancelledError:
            raise cancelled() from None
        except TimeoutError:
            if future.done():  # the step's own
                raise
            future.cancel()
            raise Expired from None
        except BaseException:  # Ctrl-C while this thread waits: nobody wants the value
            future.cancel()
            raise


class _ThreadGroup:
    """The threads of one `gather`."""

    def __init__(self, jobs: Sequence[Branch], driver: ThreadDriver, flag: BranchFlag) -> None:
        self._driver = driver
        self._flag = flag
        self._ended: list[BranchEnd | None] = [None] * len(jobs)
        # Each job has a context of its own: one context cannot be entered by two threads at a time.
        self._todo = deque((i, job, contextvars.copy_context()) for i, job in enumerate(jobs))
        self._changed = threading.Condition()
        self._running = 0
        self._ranks = 0
        flag.on_set(self._notify)  # also the run's own cancel, which comes from above

    def run(self, threads: int) -> None:
        """Start, and wait until all have ended or the flag is set."""
        self._running = threads
        for _ in range(threads):
            threading.Thread(target=self._work, name="dspex-branch", daemon=True).start()
        with self._changed:
            self._changed.wait_for(lambda: self._running == 0 or self._flag.is_set)

    def wait_for_rest(self, grace: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._running == 0, grace)

    def endings(self) -> list[BranchEnd]:
        with self._changed:
            return [ended or BranchEnd(is_cancelled=True) for ended in self._ended]

    def _work(self) -> None:
        while not self._flag.is_set:
            try:
                index, job, context = self._todo.popleft()
            except IndexError:
                break
            try:
                ended = BranchEnd(context.run(completed, job(self._driver)))
            except BaseException as error:  # the gatherer decides what it means
                ended = self._failed(error)
            with self._changed:
                self._ended[index] = ended
            if ended.error is not None:
                self._flag.set()
        with self._changed:
            self._running -= 1
            self._changed.notify_all()

    def _failed(self, error: BaseException) -> BranchEnd:
        if is_cancellation(error):
            return BranchEnd(is_cancelled=True) if self._flag.is_set else BranchEnd(error=error)
        with self._changed:
            self._ranks += 1
            return BranchEnd(error=error, rank=self._ranks)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()


def _cancel(future: concurrent.futures.Future[Any]) -> None:
    future.cancel()


async def _awaited(make: Callable[[], Awaitable[Any]]) -> Any:
    return await make()
