"""`ProgramLoop`: the event loop in which all awaited calls of one program run.

What a module keeps on itself may belong to a loop: a semaphore, a lock, an HTTP client with its connections. In DSPy
the calls of one application share its loop, so the calls of one program share one here: a thread, started at the
first awaited call, which ends with the program. The thread that runs a call waits for it. Any thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import inspect
import threading
import weakref
from dataclasses import dataclass
from typing import Any

import dspy

from ...failure import Failure
from ..calls.call_context import running

THREADS = "dspex-awaited"  # the name of its thread, and what those of `asyncio.to_thread` begin with


@dataclass(frozen=True, slots=True)
class _Raised:
    """What would end the loop, were it raised there."""

    error: BaseException


class ProgramLoop:
    """One program's loop, once somebody awaits it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def result_of(self, awaited: Any) -> Any:
        """Return what a coroutine, or an asynchronous generator at its end, gives; blocks.

        It is left when the caller has gone, at its next `await`.
        """
        loop, ended = self._started(), concurrent.futures.Future[Any]()
        context, call, tasks = contextvars.copy_context(), running(), list[asyncio.Task[Any]]()

        def begin() -> None:
            task = loop.create_task(_settled(awaited), context=context)
            tasks.append(task)
            task.add_done_callback(lambda done: _pass_on(done, ended))

        def leave() -> None:
            loop.call_soon_threadsafe(lambda: [task.cancel() for task in tasks])

        loop.call_soon_threadsafe(begin)
        with call.when_cancelled(leave):
            try:
                result = ended.result()
            except concurrent.futures.CancelledError:
                call.check_cancelled()
                raise asyncio.CancelledError from None
            except BaseException:  # a cancel that interrupts this thread: nobody waits for the task any more
                leave()
                raise
        if isinstance(result, _Raised):
            raise result.error
        return result

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(thread_name_prefix=THREADS))
                threading.Thread(target=_serve, args=(self._loop,), name=THREADS, daemon=True).start()
                weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop).atexit = False
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


def _pass_on(done: asyncio.Task[Any], ended: concurrent.futures.Future[Any]) -> None:
    if done.cancelled():
        ended.cancel()
        ended.set_running_or_notify_cancel()
    elif (error := done.exception()) is not None:
        ended.set_exception(error)
    else:
        ended.set_result(done.result())


async def _settled(awaited: Any) -> Any:
    try:
        value = awaited if inspect.isasyncgen(awaited) else await awaited
        return await _last(value) if inspect.isasyncgen(value) else value
    except (SystemExit, KeyboardInterrupt) as error:
        return _Raised(error)


async def _last(stream: Any) -> Any:
    """Return the prediction that ends a stream.

    Raises:
        Failure: InvalidReturn, when none came: whatever else it gives can be read only where it was made.
    """
    last = None
    async with contextlib.aclosing(stream):
        async for item in stream:
            last = item if isinstance(item, dspy.Prediction) else last
    if last is None:
        name = getattr(stream, "__qualname__", type(stream).__name__)
        raise Failure("InvalidReturn", f"{name} returned a stream without a dspy.Prediction at its end.")
    return last
