"""Run the plain handlers of one pool in threads: tools and metrics, which may block for any time.

A handler whose call has ended is nobody's any more, but a thread cannot be ended from outside: it is *left*, does not
count against the threads that serve calls, and another takes its place. Past `LEFT_MOST` such threads no more are
started; once they hold all that there are, tools are refused with an error that says so.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import TooManyToolsLeft

if TYPE_CHECKING:
    from .callbacks import Callback

THREADS = 32  # that serve calls; what tools led to gets threads beyond it, or they could wait for each other
LEFT_MOST = 128  # threads of handlers that do not end with their calls
BESIDE_MOST = 256  # threads of what tools led to, left ones included
Job = Callable[[], None]


class ToolThreads:
    """The handler threads of one pool. Any thread; `on_left` is called, without a lock, when too many are left."""

    def __init__(self, pool: str, on_left: Callable[[int], None]) -> None:
        self._pool = pool
        self._on_left = on_left
        self._lock = threading.Lock()
        self._has_work = threading.Condition(self._lock)
        self._todo: deque[tuple[Callback, Job]] = deque()
        self._busy: set[Callback] = set()
        self._left: set[Callback] = set()
        self._beside = 0
        self._threads = 0
        self._idle = 0
        self._made = 0  # for their names
        self._is_over = False

    def run(self, request: Callback, job: Job) -> None:
        """Run `job` as soon as a thread is free.

        Raises:
            TooManyToolsLeft: every thread is held by a handler whose call has ended.
            RuntimeError: the system gives no thread, and there is none.
        """
        with self._lock:
            self._require_hope()
            self._todo.append((request, job))
            try:
                self._grow()
            except RuntimeError:
                if not self._threads:  # else the job waits for one that is there
                    self._todo.pop()
                    raise
            self._has_work.notify()

    def run_beside(self, request: Callback, job: Job) -> None:
        """Run `job` in a thread of its own: a tool waits for it.

        Raises:
            TooManyToolsLeft: there are too many of these.
            RuntimeError: the system gives no thread.
        """
        with self._lock:
            if self._beside >= BESIDE_MOST:
                raise TooManyToolsLeft(self._pool, left=self._beside, limit=BESIDE_MOST)
            self._beside += 1

        def work() -> None:
            try:
                job()
            finally:
                with self._lock:
                    self._beside -= 1

        try:
            threading.Thread(target=work, name="dspex-nested-tool", daemon=True).start()
        except RuntimeError:
            with self._lock:
                self._beside -= 1
            raise

    def leave(self, request: Callback) -> list[Callback]:
        """Abandon a job that nobody waits for; return those that no thread will ever serve now."""
        with self._lock:
            if request not in self._busy:
                self._todo = deque(pair for pair in self._todo if pair[0] is not request)
                return []
            self._busy.discard(request)
            self._left.add(request)
            count = len(self._left)
            try:
                self._grow()
                self._require_hope()
            except RuntimeError:
                pass  # the jobs wait for a thread that is there
            except TooManyToolsLeft:
                return self._report_left(count, [waiting for waiting, _ in self._empty()])
        return self._report_left(count, [])

    def exhausted(self) -> TooManyToolsLeft:
        """Return the error of a request that no thread will serve."""
        return TooManyToolsLeft(self._pool, left=len(self._left), limit=THREADS + LEFT_MOST)

    def stop(self) -> None:
        """Let the threads end as they become idle."""
        with self._lock:
            self._is_over = True
            self._has_work.notify_all()

    # -- how --

    def _report_left(self, count: int, hopeless: list[Callback]) -> list[Callback]:
        if count == LEFT_MOST or hopeless:
            self._on_left(count)
        return hopeless

    def _empty(self) -> deque[tuple[Callback, Job]]:
        todo, self._todo = self._todo, deque()
        return todo

    def _require_hope(self) -> None:
        if len(self._left) >= THREADS + LEFT_MOST:
            raise self.exhausted()

    def _grow(self) -> None:
        """Start a thread if there is work for one more. The lock is held."""
        serving = self._threads - len(self._left)
        if len(self._todo) > self._idle and serving < THREADS and self._threads < THREADS + LEFT_MOST:
            self._made += 1
            threading.Thread(target=self._work, name=f"dspex-tool-{self._made}", daemon=True).start()
            self._threads += 1

    def _work(self) -> None:
        while (taken := self._next()) is not None:
            request, job = taken
            del taken
            try:
                job()
            except Exception:  # of the answering, not of the tool: the thread has others to serve
                logging.getLogger("dspex").exception("the answer of a tool of pool %s was lost", self._pool)
            finally:
                with self._lock:
                    self._busy.discard(request)
                    self._left.discard(request)
            del request, job  # an idle thread keeps nothing of what it did

    def _next(self) -> tuple[Callback, Job] | None:
        """Wait for work; None if this thread is one too many."""
        with self._lock:
            while not self._todo or self._is_one_too_many():
                if self._is_over or self._is_one_too_many():
                    self._threads -= 1
                    self._has_work.notify()  # what woke this one may be another's work
                    return None
                self._idle += 1
                self._has_work.wait()
                self._idle -= 1
            pair = self._todo.popleft()
            self._busy.add(pair[0])
            return pair

    def _is_one_too_many(self) -> bool:
        """Whether a handler that was left has ended, and its thread was replaced meanwhile."""
        return self._threads - len(self._left) > THREADS
