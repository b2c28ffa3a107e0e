"""`SharedOptimization`: one optimization of a step, and all runs that wait for it; it ends when the last has left."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Generator, MutableMapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from ...errors import CallCancelled, StepTimeout
from ...programs.optimization.job import OptimizationJob
from ...programs.saving.optimized import Optimized
from .runnable import Scope


class SharedOptimization:
    """One optimization and all who wait for it. Its thread reports to every one of them.

    A waiter that leaves does not end it for the others; when the last has left, nobody wants it, and it is cancelled.
    """

    def __init__(self, name: str, kept: MutableMapping[str, Any], key: str) -> None:
        self._name = name
        self._kept = kept
        self._key = key
        self._future: Future[Optimized] = Future()
        self._listeners: list[Callable[[dict[str, Any]], object]] = []
        self._lock = threading.Lock()
        self._waiters = 0
        self._is_given_up = False
        self._job: OptimizationJob[Any] | None = None
        self.seconds = 0.0  # that the job took, once it is over

    @property
    def is_over(self) -> bool:
        return self._future.done()

    def enter(self) -> bool:
        """Wait for it from now on; False if it was given up."""
        with self._lock:
            if self._is_given_up:
                return False
            self._waiters += 1
            return True

    def start(self, begin: Callable[[], OptimizationJob[Any]]) -> None:
        """Begin it, in a thread of its own: what must be checked first takes its time."""

        def work() -> None:
            began = time.monotonic()
            try:
                best = self._begun(begin()).result()
            except BaseException as error:  # every waiter raises it
                self.forget()
                self._future.set_exception(error)
            else:
                self.seconds = time.monotonic() - began
                self._future.set_result(best)

        threading.Thread(target=work, name="dspex-optimization", daemon=True).start()

    def report(self, facts: dict[str, Any]) -> None:
        for listener in tuple(self._listeners):
            listener(facts)

    def wait(self, scope: Scope) -> Optimized:
        """Return the optimized program, for who has entered; blocks.

        Raises:
            StepTimeout, CallCancelled: this waiter's time is up, or it is not wanted any more.
        """
        ready = threading.Event()
        take_back = scope.cancel.on_set(ready.set)
        self._future.add_done_callback(lambda _: ready.set())
        with self._waiting(scope):
            is_ready = ready.wait(_patience(scope))
            take_back()
            if self._future.done():
                return self._future.result()
        if not is_ready:
            raise StepTimeout(self._name, timeout=scope.timeout or math.inf, whose="step")
        raise CallCancelled(f"The step {self._name} was cancelled; if others wait for its optimization, it goes on.")

    async def await_(self, scope: Scope) -> Optimized:
        """`wait`, awaited; cancelling the task leaves the optimization to the others."""
        with self._waiting(scope):
            try:
                async with asyncio.timeout(_patience(scope)):
                    return await asyncio.shield(asyncio.wrap_future(self._future))
            except TimeoutError:
                if self._future.done():
                    raise
                raise StepTimeout(self._name, timeout=scope.timeout or math.inf, whose="step") from None

    @contextmanager
    def _waiting(self, scope: Scope) -> Generator[None]:
        if scope.on_progress is not None:
            self._listeners.append(scope.on_progress)
        try:
            yield
        finally:
            if scope.on_progress is not None:
                self._listeners.remove(scope.on_progress)
            self._leave()

    def forget(self) -> None:
        """Let the next run begin another."""
        if self._kept.get(self._key) is self:
            self._kept.pop(self._key, None)

    def _leave(self) -> None:
        with self._lock:
            self._waiters -= 1
            if self._waiters or self._future.done():
                return
            self._is_given_up, job = True, self._job
        self.forget()
        if job is not None:
            job.cancel()

    def _begun(self, job: OptimizationJob[Any]) -> OptimizationJob[Any]:
        with self._lock:
            self._job, is_given_up = job, self._is_given_up
        if is_given_up:
            job.cancel()
        return job


def _patience(scope: Scope) -> float | None:
    return None if scope.timeout in (None, math.inf) else scope.timeout
