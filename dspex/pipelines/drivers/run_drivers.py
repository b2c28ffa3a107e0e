"""Drive pipeline runs: in threads (`run`, `stream`), or on the caller's event loop (`arun`, `astream`).

The logic in `core/runner.py` is written once, as coroutines that await nothing but a driver. The methods of
`ThreadDriver` are coroutines that never suspend: they block instead, so `completed(...)` runs such a coroutine to its
end in the calling thread, and no event loop is needed. `TaskDriver`'s really await.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import inspect
import math
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ...cancel_flag import CancelFlag
from ...loop_thread import LoopThread
from .cancel import BranchFlag, cancelled
from .threads import Threads

Branch = Callable[["Driver"], Coroutine[Any, Any, Any]]


class Expired(Exception):
    """The deadline passed; the step turns it into its own error."""


@dataclass(frozen=True, slots=True)
class BranchEnd:
    """How a branch ended: a value, an error, or cancelled (both None). `rank` orders the errors in time."""

    value: Any = None
    error: BaseException | None = None
    rank: int = 0
    is_cancelled: bool = False


class Driver(Protocol):
    """The interface of a driver. `cancel` is set when the run, or this branch, is not wanted any more."""

    @property
    def cancel(self) -> CancelFlag: ...

    def check(self) -> None:
        """Raise CallCancelled if the run, or this branch, was cancelled."""

    def close(self) -> None:
        """End the run: release its threads."""

    async def call(self, function: Callable[[], Any], deadline: float) -> Any:
        """Call a user's function, plain or async, and return its value; Expired when the deadline comes first."""

    async def do(
        self, blocking: Callable[[], Any], awaiting: Callable[[], Awaitable[Any]], *, heeds_cancel: bool
    ) -> Any:
        """Do what has a blocking and an async form, and its own deadline; `heeds_cancel`: the former heeds `cancel`."""

    async def gather(self, jobs: Sequence[Branch], *, limit: int, grace: float) -> list[BranchEnd]:
        """Run jobs at the same time, `limit` at most; the first error cancels the others and waits `grace` for them."""
        ...


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

    def check(self) -> None:
        self._flag.check()

    def close(self) -> None:
        self._threads.close()

    async def call(self, function: Callable[[], Any], deadline: float) -> Any:
        if inspect.iscoroutinefunction(_innermost(function)):
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
        self._threads.start(function, lambda value, error: _settle(future, value, error))
        return self._wait(future, deadline)

    def _await(self, coroutine: Coroutine[Any, Any, Any], deadline: float) -> Any:
        return self._wait(self._loop.submit(coroutine), deadline)

    def _wait(self, future: concurrent.futures.Future[Any], deadline: float) -> Any:
        try:
            with self._flag.calling(lambda: _cancel(future)):
                return future.result(_left(deadline))
        except concurrent.futures.CancelledError:
            raise cancelled() from None
        except TimeoutError:
            if future.done():  # the step's own
                raise
            future.cancel()
            raise Expired from None
        except BaseException:
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
        timer = asyncio.timeout(_left(deadline))
        try:
            async with timer:
                if inspect.iscoroutinefunction(_innermost(function)):
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

        def settle(value: Any, error: BaseException | None) -> None:
            try:
                loop.call_soon_threadsafe(_settle, future, value, error)
            except RuntimeError:
                pass  # the loop is closed: nobody waits

        self._threads.start(function, settle)
        return await future

    async def _end(self, tasks: Sequence[asyncio.Task[Any]], grace: float) -> None:
        """Cancel what still runs and give it `grace`; what does not end then is left to end by itself."""
        for task in tasks:
            task.cancel()
        if running := [task for task in tasks if not task.done()]:
            _, stubborn = await asyncio.wait(running, timeout=grace)
            for task in stubborn:
                self._left_behind.add(task)
                task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._left_behind.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not report it


def is_cancellation(error: BaseException) -> bool:
    """Return whether an error means that somebody gave up: never retried, never handled by a fallback (P7)."""
    from ...errors import CallCancelled

    return isinstance(error, CallCancelled | asyncio.CancelledError | concurrent.futures.CancelledError)


def _ending(task: asyncio.Task[Any], order: list[asyncio.Task[Any]]) -> BranchEnd:
    if not task.done() or task.cancelled():
        return BranchEnd(is_cancelled=True)
    error = task.exception()
    if error is None:
        return BranchEnd(task.result())
    return BranchEnd(error=error, rank=order.index(task) if task in order else len(order))


def _settle(future: Any, value: Any, error: BaseException | None) -> None:
    try:
        if future.done():
            return
        if isinstance(error, StopIteration):  # a future cannot hold it
            future.set_exception(RuntimeError(f"the step raised {error!r}"))
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)
    except concurrent.futures.InvalidStateError:
        pass  # given up in the meantime


def _cancel(future: concurrent.futures.Future[Any]) -> None:
    future.cancel()


async def _awaited(make: Callable[[], Awaitable[Any]]) -> Any:
    return await make()


def _innermost(function: Any) -> Any:
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    return function


def _left(deadline: float) -> float | None:
    return None if deadline == math.inf else max(0.0, deadline - time.monotonic())
