"""Run functions of the user's in threads that may be left alone: one that hangs keeps none from the next function.

`ThreadPoolExecutor` has a fixed number of threads, and the interpreter waits for them when it ends. These are daemons,
and there is always one more. `EvaluationRun` bounds how many run at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import Any

Job = tuple[Future[Any], Callable[[], Any]]
IDLE_S = 5.0  # that a thread waits for more


class LeftThreads(Executor):
    """As many threads as there are functions that run; an idle one takes the next."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0  # threads that wait, and no job is on its way to them

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        outcome: Future[Any] = Future()
        job = (outcome, lambda: function(*arguments, **named))
        with self._lock:
            is_taken = self._idle > 0
            if is_taken:
                self._idle -= 1
                self._jobs.put(job)
        if not is_taken:
            threading.Thread(target=self._work, args=(job,), name=self._name, daemon=True).start()
        return outcome

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads as they become idle; nothing waits for those that are left."""
        with self._lock:
            for _ in range(self._idle):
                self._jobs.put(None)

    def _work(self, job: Job | None) -> None:
        while job is not None:
            outcome, function = job
            if outcome.set_running_or_notify_cancel():
                try:
                    outcome.set_result(function())
                except BaseException as error:  # it belongs to who waits
                    outcome.set_exception(error)
            del outcome, function, job  # an idle thread keeps nothing of what it did
            job = self._next()

    def _next(self) -> Job | None:
        """Wait for work; None if there is none for a while."""
        with self._lock:
            self._idle += 1
        try:
            return self._jobs.get(timeout=IDLE_S)
        except Empty:
            with self._lock:
                if self._idle > 0:
                    self._idle -= 1
                    return None
        return self._jobs.get()  # it is on its way to this one
