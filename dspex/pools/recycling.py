"""Replace a pool's workers one by one, by others like them or from a new fork server.

Any thread asks; where a new fork server is needed, the engine's thread does the rest, so that it goes on if whoever
asked does not wait for the end.
"""

from __future__ import annotations

from math import inf
from time import monotonic

from ..config import PoolConfig
from ..errors import WorkerBootError
from ..events import Bus, Name
from .dispatcher import Dispatcher
from .processes.engine import Engine
from .workers import PoolWorkers


class Recycler:
    """The planned replacements of one pool."""

    def __init__(self, dispatcher: Dispatcher, pool_workers: PoolWorkers, engine: Engine, bus: Bus) -> None:
        self._dispatcher = dispatcher
        self._pool_workers = pool_workers
        self._engine = engine
        self._bus = bus

    def recycle(self, timeout: float | None) -> None:
        """Replace every worker by one from the same fork server, and wait until all are.

        Where workers have imported modules of the user's that it lacks, a new one that has them is warmed first; if it
        cannot be, the same one serves.

        Raises:
            TimeoutError: see `Pool.recycle`.
        """
        if self._pool_workers.forkserver.learned.is_behind:
            try:
                self.renew(self._dispatcher.config, timeout)
                return
            except WorkerBootError:
                pass
        with self._dispatcher.lock:
            old = {generation for generation, worker in self._dispatcher.state.workers.items() if worker.is_staying}
        self._begin(old)
        self._wait_for_end_of(old, timeout)

    def renew(self, config: PoolConfig, timeout: float | None) -> None:
        """Take these settings, and replace every worker by one of a new fork server with them; wait for that.

        Raises:
            WorkerBootError, TimeoutError: see `Pool.reconfigure`.
        """
        until = inf if timeout is None else monotonic() + timeout
        old: set[int] = set()
        outcomes: list[WorkerBootError | None] = []

        def outcome(error: WorkerBootError | None) -> None:
            if error is None:
                if config is not self._dispatcher.config:  # else the code alone is new: the pool may be resized by now
                    self.adopt(config)
                old.update(self._pool_workers.outdated())
                self._begin(old)
            outcomes.append(error)

        self._engine.call_soon(lambda: self._pool_workers.forkserver.renew(config, outcome))
        self._dispatcher.changes.wait_or_raise(lambda: bool(outcomes), timeout, "warm a new fork server")
        if outcomes[0] is not None:
            raise outcomes[0]
        self._wait_for_end_of(old, None if timeout is None else max(0.0, until - monotonic()))

    def adopt(self, config: PoolConfig) -> None:
        """Apply these settings from now on; the workers stay."""
        changed = self._dispatcher.config.changed(config)
        self._dispatcher.adopt(config)
        if changed:
            self._bus.emit(Name.POOL_RECONFIGURED, pool=self._dispatcher.name, settings=",".join(changed))

    def _begin(self, old: set[int]) -> None:
        self._dispatcher.change(lambda now: self._dispatcher.state.recycle(now, generations=old))

    def _wait_for_end_of(self, old: set[int], timeout: float | None) -> None:
        self._dispatcher.changes.wait_or_raise(
            lambda: old.isdisjoint(self._dispatcher.state.workers), timeout, "replace its workers"
        )
