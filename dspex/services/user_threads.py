"""Run functions of the user's in threads, each call with a limit: one that hangs is left alone, and others go on.

A thread cannot be ended from outside. It is *left*: a daemon, named `LEFT`, which takes no place from those that serve
and is back among them if its function ends. `ThreadPoolExecutor` would run out of threads, and the interpreter would
wait for them when it ends.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from .metric_limit import LEFT, UNBOUNDED, MetricLimit

AT_ONCE = 32  # calls of one metric
NAME = "dspex-user-code"


class UserCall:
    """One call of a function, and the thread that serves it."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.outcome: Future[tuple[Any, Exception | None]] = Future()
        self.thread: threading.Thread | None = None
        self._run = contextvars.copy_context().run
        self._function = function

    def serve(self) -> None:
        """Call the function, unless nobody waits any more."""
        self.thread = threading.current_thread()
        if not self.outcome.set_running_or_notify_cancel():
            return
        try:
            found: tuple[Any, Exception | None] = self._run(self._function), None
        except BaseException as error:  # it belongs to who waits, also SystemExit
            found = None, as_error(error)
        self.outcome.set_result(found)


class UserThreads:
    """Threads for the functions of one job or evaluation, `at_once` calls at a time.

    Whose results are awaited on one event loop. `stop` ends the threads.
    """

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._todo: SimpleQueue[UserCall | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0  # threads that wait, and no call is on its way to them
        self._is_over = False

    async def result(self, function: Callable[[], Any], limit: MetricLimit = UNBOUNDED) -> Any:
        """Return what a function gives, in this task's contextvars; its time counts from when it has a thread.

        Raises:
            MetricTimeout: that is over the limit.
            TooManyToolsLeft: too many threads of this process are held by functions that nobody waits for.
        """
        async with self._places:
            limit.require_threads()
            call = UserCall(function)
            self._start(call)
            waiting = asyncio.wrap_future(call.outcome)
            try:
                await asyncio.wait({waiting}, timeout=limit.seconds)
            finally:
                self._leave(call)
            if not waiting.done():
                raise limit.exceeded()
        value, error = waiting.result()
        if error is not None:
            raise error
        return value

    def stop(self) -> None:
        """End the threads as they become idle, and later calls' with these; nothing waits for those that are left."""
        with self._lock:
            self._is_over = True
            while self._idle:
                self._idle -= 1
                self._todo.put(None)

    def _start(self, call: UserCall) -> None:
        with self._lock:
            if self._idle:
                self._idle -= 1
                self._todo.put(call)
                return
        threading.Thread(target=self._serve, args=(call,), name=NAME, daemon=True).start()

    def _leave(self, call: UserCall) -> None:
        with self._lock:
            if not call.outcome.done() and not call.outcome.cancel() and call.thread is not None:
                call.thread.name = LEFT

    def _serve(self, call: UserCall | None) -> None:
        while call is not None:
            call.serve()
            del call  # an idle thread keeps nothing of what it did
            with self._lock:
                threading.current_thread().name = NAME
                if self._is_over:
                    return
                self._idle += 1
            call = self._todo.get()


def as_error(error: BaseException) -> Exception:
    """Return what a caller may raise for what a function of the user's raised: nothing that would end its own task.

    That would be `sys.exit`, or a cancellation of the function's own; and no coroutine can raise StopIteration.
    """
    if isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration):
        return error
    said = f": {error}" if str(error) else ""
    made = RuntimeError(f"{type(error).__name__} was raised{said}")
    made.__cause__ = error
    return made
