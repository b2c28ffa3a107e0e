"""Reap a pool's dead workers: end their calls, count their deaths, close their pipes. Runs on the engine's thread."""

from __future__ import annotations

from math import inf
from time import monotonic

from . import call_errors
from .dispatcher import Dispatcher
from .inbox import Inbox
from .orphan_memory import OrphanMemory
from .processes.engine import Engine
from .processes.orphans import end_of, end_session
from .processes.pool_forkserver import PoolForkserver
from .processes.timers import Timer
from .state.instructions import Instruction
from .worker import Worker

EXIT_PATIENCE = 0.02  # seconds that a dead worker's calls wait for the fork server's report of how it died (T3)
BOOT_PATIENCE = 1.0  # the same for one that was never ready: it has no calls, and why it could not start matters


class Reaper:
    """Reaps the workers of one pool."""

    def __init__(
        self, dispatcher: Dispatcher, inbox: Inbox, forkserver: PoolForkserver, orphans: OrphanMemory, engine: Engine
    ) -> None:
        self.boot_failures = 0  # in a row, without a worker becoming ready
        self.is_ending = False  # the pool is: workers that die now were stopped
        self._dispatcher = dispatcher
        self._inbox = inbox
        self._forkserver = forkserver
        self._orphans = orphans
        self._dying: dict[int, float] = {}  # by generation: until when the fork server may report how it ended
        self._timer = Timer(engine.timers, self.reap_overdue)

    def on_death(self, worker: Worker) -> None:
        """Handle a worker's end, seen by its pidfd: read its last reports, then end its calls (C9)."""
        worker.stop_watching()
        self._inbox.drain(worker)
        worker.drain_stderr()
        self._inbox.end_output(worker)
        if worker.forkserver is None and worker.config.memory_cap is not None and worker.over is None:
            worker.over = self._forkserver.memory_cap.overrun(worker.generation, worker.config.memory_cap)
        if worker.exit is not None or worker.forkserver is None:
            self.reap(worker)
            return
        record = self._dispatcher.state.workers.get(worker.generation)
        was_ready = record is not None and record.ready_at is not None
        self._dying[worker.generation] = due = monotonic() + (EXIT_PATIENCE if was_ready else BOOT_PATIENCE)
        self._timer.set(min(due, self._timer.due))

    def on_exit_known(self, worker: Worker) -> None:
        """Handle the fork server's report of how a worker ended."""
        if worker.generation in self._dying:
            self.reap(worker)

    def reap_overdue(self, now: float) -> None:
        """Reap those whose fork server has not reported in time how they ended: by a late report, else by /proc."""
        for generation in [generation for generation, until in self._dying.items() if until <= now]:
            worker = self._dispatcher.workers.get(generation)
            if worker is None:
                continue  # it was reaped with the one before: their fork server reported both
            if worker.forkserver is not None:
                worker.forkserver.receive()
                worker.exit = worker.exit or end_of(worker.pid, worker.forkserver.pid)
            self.reap(worker)
        self._timer.set(min(self._dying.values(), default=inf))

    def reap(self, worker: Worker) -> None:
        """Reap a worker: end its calls, take it out of the pool, close its descriptors."""
        if self._dispatcher.workers.get(worker.generation) is not worker:
            return
        self._dying.pop(worker.generation, None)
        for request in tuple(worker.callbacks.values()):
            request.cancel()
        worker.callbacks.clear()
        self._count_end(worker)
        self._dispatcher.remove_worker(worker, lambda now: self._died(worker, now))
        self._orphans.end(worker)
        if worker.forkserver is None:
            end_session(worker.pid)
            worker.reap()
        worker.close()
        self.release_forkservers()
        self._dispatcher.changes.notify()

    def _count_end(self, worker: Worker) -> None:
        """Count a death, or remember why a worker could not start."""
        record = self._dispatcher.state.workers.get(worker.generation)
        if record is None or record.ready_at is not None:
            self.boot_failures = 0
            is_planned = record is not None and record.leave_reason and not record.kill_reason
            self._dispatcher.counts["stops" if is_planned else "deaths"] += 1
            return
        if record.kill_reason in ("", "startup_timeout"):
            worker.kill_reason = record.kill_reason
            self.boot_failures += 1
            self._dispatcher.boot_error = call_errors.boot_error(
                self._dispatcher.name, worker, self._forkserver.stderr_tail(), self._dispatcher.config.startup_timeout
            )

    def _died(self, worker: Worker, now: float) -> list[Instruction]:
        """Report the death to the state. The pool's lock is held."""
        record = self._dispatcher.state.workers.get(worker.generation)
        worker.kill_reason = record.kill_reason if record is not None else ""
        if self.is_ending and worker.exit is None:
            worker.kill_reason = worker.kill_reason or "stopped"
        return self._dispatcher.state.died(
            worker.generation,
            now,
            by_itself=call_errors.is_by_itself(worker),
            unstarted=worker.unstarted(),
            cause=call_errors.cause_of(worker),
        )

    def release_forkservers(self) -> None:
        """Let go of replaced fork servers that no worker needs any more."""
        self._forkserver.release({worker.forkserver for worker in self._dispatcher.workers.values()})
