"""Measure workers whose fork server is gone, and hold them to their memory cap (T6). Engine's thread."""

from __future__ import annotations

from collections.abc import Callable

from dspex_worker.memory.monitor import MemoryMonitor, MonitoredWorker

from .processes.engine import Engine
from .processes.orphans import kill_with_descendants
from .processes.timers import Timer
from .worker import Worker


class OrphanMemory:
    """Measures one pool's orphaned workers; `measured` gets (worker, resident size, what counts of it, peak)."""

    def __init__(self, engine: Engine, measured: Callable[[Worker, int, int, int], None]) -> None:
        self._report = measured
        self._workers: dict[int, Worker] = {}
        self._monitor = MemoryMonitor(report=self._measured, over=self._over)
        self._timer = Timer(engine.timers, self._look)

    def begin(self, worker: Worker) -> None:
        """Measure the worker from now on."""
        config = worker.config
        self._workers[worker.generation] = worker
        self._monitor.begin(worker.generation, worker.pid, config.memory_cap, config.recycle_after_memory)
        self._timer.set(self._monitor.due)

    def end(self, worker: Worker) -> None:
        """Measure it no more; it may never have been measured."""
        if self._workers.pop(worker.generation, None) is not None:
            self._monitor.end(worker.generation)

    def _look(self, now: float) -> None:
        self._monitor.look(now)
        self._timer.set(self._monitor.due)

    def _measured(self, watched: MonitoredWorker, counted: int) -> None:
        self._report(self._workers[watched.generation], watched.gauge.rss, counted, watched.gauge.peak)

    def _over(self, watched: MonitoredWorker, seen: int) -> None:
        worker = self._workers[watched.generation]
        peak = max(watched.gauge.peak, seen)
        worker.over = {"seen": seen, "peak": peak, "cap": worker.config.memory_cap, "layer": "poll"}
        kill_with_descendants(worker)
