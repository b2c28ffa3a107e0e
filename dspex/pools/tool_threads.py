"""Run the plain handlers of one pool in threads: tools and metrics, which may block for any time.

A handler whose call has ended is nobody's any more, but a thread cannot be ended from outside: it is *left*, does not
count against the threads that serve calls, and another takes its place. Past `LEFT_MOST` such threads no more are
started; once they hold all that there are, tools are refused with an error that says so.

One call may have all of `THREADS`. A few calls may have as many each, so that a job whose metric is slow, or hangs,
takes none from another job of its pool.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import TooManyToolsLeft

if TYPE_CHECKING:
    from .callbacks import Callback

THREADS = 32  # that serve calls; what tools led to gets threads beyond it, or they could wait for each other
CALLS_MOST = 8  # that may have so many threads each, such as jobs with slow metrics; more calls share them
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
        self._of_calls: Counter[int] = Counter()  # jobs that wait or run, by the id of their call
        self._held: Counter[int] = Counter()  # threads, by call
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
            self._of_calls[request.outer.id] += 1
            try:
                self._grow()
            except RuntimeError:
                if not self._threads:  # else the job waits for one that is there
                    self._todo.pop()
                    self._forget(request)
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
                waiting = deque(pair for pair in self._todo if pair[0] is not request)
                if len(waiting) < len(self._todo):
                    self._forget(request)
                self._todo = waiting
                return []
            self._release(request)
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
        for request, _ in todo:
            self._forget(request)
        return todo

    def _require_hope(self) -> None:
        if len(self._left) >= THREADS + LEFT_MOST:
            raise self.exhausted()

    def _grow(self) -> None:
        """Start a thread if there is work for one more. The lock is held."""
        serving, most = self._threads - len(self._left), self._most()
        if len(self._todo) > self._idle and serving < most and self._threads < most + LEFT_MOST:
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
                    self._release(request)
                    self._left.discard(request)
            del request, job  # an idle thread keeps nothing of what it did

    def _next(self) -> tuple[Callback, Job] | None:
        """Wait for work; None if this thread is one too many."""
        with self._lock:
            while (pair := self._next_of_a_call()) is None or self._is_one_too_many():
                if self._is_over or self._is_one_too_many():
                    self._threads -= 1
                    self._has_work.notify()  # what woke this one may be another's work
                    return None
                self._idle += 1
                self._has_work.wait()
                self._idle -= 1
            self._todo.remove(pair)
            self._busy.add(pair[0])
            self._held[pair[0].outer.id] += 1
            return pair

    def _next_of_a_call(self) -> tuple[Callback, Job] | None:
        """Return the first job of a call that has not its share of threads: one with slow tools stops no other."""
        return next((pair for pair in self._todo if self._held[pair[0].outer.id] < THREADS), None)

    def _most(self) -> int:
        """Return how many threads may serve: as many for each of a few calls, or for all of many."""
        return THREADS * max(1, len(self._of_calls)) if len(self._of_calls) <= CALLS_MOST else THREADS

    def _release(self, request: Callback) -> None:
        """Note that a request has a thread no more, if it had one that counted."""
        if request not in self._busy:
            return
        self._busy.discard(request)
        call = request.outer.id
        self._held[call] -= 1
        if not self._held[call]:
            del self._held[call]
        self._forget(request)

    def _forget(self, request: Callback) -> None:
        call = request.outer.id
        self._of_calls[call] -= 1
        if not self._of_calls[call]:
            del self._of_calls[call]

    def _is_one_too_many(self) -> bool:
        """Whether a handler that was left has ended, and its thread was replaced meanwhile."""
        return self._threads - len(self._left) > self._most()
