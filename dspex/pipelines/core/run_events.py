"""The events of a run, and the streams that `stream` and `astream` return.

A stream's run goes on beside its reader: in a thread, or as a task. Closing the stream cancels the run; so does
dropping it, which is done without a lock, since the collector may run anywhere (C11).
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from ..drivers.cancel import BranchFlag

if TYPE_CHECKING:
    from ...loop_thread import LoopThread
    from .results import Result, StepRecord

Watcher = Callable[["PipelineEvent"], None]
_CLOSE_PATIENCE = 5.0  # seconds that `aclose` waits for the run's own end


class EventKind(StrEnum):
    """The kinds of events."""

    RUN_STARTED = "run_started"
    STEP_STARTED = "step_started"
    STEP_PROGRESSED = "step_progressed"  # facts: what the step reports, such as an optimizer's trials
    STEP_CHUNK = "step_chunk"  # facts: field, text, predictor
    STEP_FINISHED = "step_finished"
    STEP_SKIPPED = "step_skipped"
    STEP_FAILED = "step_failed"
    RUN_FINISHED = "run_finished"


@dataclass(frozen=True, slots=True)
class PipelineEvent:
    """One event of a run. `step` is the step's name; `record`, `error` and `result` come with kinds that have one."""

    kind: EventKind
    session: str
    step: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    record: StepRecord | None = None
    error: BaseException | None = None
    result: Result | None = None


@dataclass(frozen=True, slots=True)
class _End:
    """Marks the end of the run."""

    error: BaseException | None = None


class EventStream(Iterator[PipelineEvent]):
    """A run's events for a thread; the last one carries the Result. A run that fails raises after its events."""

    def __init__(self, work: Callable[[Watcher, BranchFlag], Any], loop: LoopThread) -> None:
        self._queue: SimpleQueue[PipelineEvent | _End] = SimpleQueue()
        self._flag = BranchFlag()
        self._loop = loop.running()  # where a finalizer can have the flag set
        self._is_open = True
        args = (work, self._queue, self._flag)
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(_serve, *args), name="dspex-pipeline", daemon=True).start()

    def __next__(self) -> PipelineEvent:
        if not self._is_open:
            raise StopIteration
        try:
            item = self._queue.get()
        except BaseException:  # KeyboardInterrupt while waiting
            self.close()
            raise
        if isinstance(item, PipelineEvent):
            return item
        self._is_open = False
        if item.error is not None:
            raise item.error
        raise StopIteration

    def close(self) -> None:
        """Stop: the run is cancelled."""
        if self._is_open:
            self._is_open = False
            self._flag.set()

    def __enter__(self) -> EventStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_is_open", False):
            self._is_open = False
            with contextlib.suppress(RuntimeError):  # the loop is closed, and the interpreter ends
                self._loop.call_soon_threadsafe(self._flag.set)


class AsyncEventStream(AsyncIterator[PipelineEvent]):
    """A run's events for a coroutine; `await aclose()` it, or leave its `async with` block, to stop early."""

    def __init__(self, work: Callable[[Watcher], Coroutine[Any, Any, Any]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._inbox = _Inbox(self._loop)
        self._is_open = True
        self._task = self._loop.create_task(_aserve(work, self._inbox))

    async def __anext__(self) -> PipelineEvent:
        if not self._is_open:
            raise StopAsyncIteration
        try:
            item = await self._inbox.get()
        except BaseException:  # CancelledError while waiting
            await self.aclose()
            raise
        if isinstance(item, PipelineEvent):
            return item
        self._is_open = False
        if item.error is not None:
            raise item.error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Stop: the run is cancelled, and waited for."""
        if self._is_open:
            self._is_open = False
            self._task.cancel()
            await asyncio.wait([self._task], timeout=_CLOSE_PATIENCE)

    async def __aenter__(self) -> AsyncEventStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if getattr(self, "_is_open", False):
            self._is_open = False
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._task.cancel)


class _Inbox:
    """Events on their way to a coroutine, from the loop and from threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: deque[PipelineEvent | _End] = deque()
        self._has_some = asyncio.Event()

    def put(self, item: PipelineEvent | _End) -> None:
        self._items.append(item)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads
            self._loop.call_soon_threadsafe(self._has_some.set)

    async def get(self) -> PipelineEvent | _End:
        while not self._items:
            self._has_some.clear()
            if not self._items:
                await self._has_some.wait()
        return self._items.popleft()


def _serve(work: Callable[[Watcher, BranchFlag], Any], queue: SimpleQueue[Any], flag: BranchFlag) -> None:
    try:
        work(queue.put, flag)
    except BaseException as error:  # the reader raises it
        queue.put(_End(error))
    else:
        queue.put(_End())


async def _aserve(work: Callable[[Watcher], Coroutine[Any, Any, Any]], inbox: _Inbox) -> None:
    try:
        await work(inbox.put)
    except asyncio.CancelledError:
        inbox.put(_End())
        raise
    except BaseException as error:  # the reader raises it
        inbox.put(_End(error))
    else:
        inbox.put(_End())
