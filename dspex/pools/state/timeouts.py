"""Decide what becomes of workers whose time is up: at start, with a cancel, while draining, at stop, by age. Pure."""

from __future__ import annotations

from .instructions import Cancel
from .lifecycle import Lifecycle
from .model import PoolModel
from .records import WorkerPhase, WorkerRecord
from .restarts import Restarts


class WorkerTimeouts:
    """The time limits of one pool's workers."""

    def __init__(self, model: PoolModel, lifecycle: Lifecycle, restarts: Restarts) -> None:
        self._model = model
        self._lifecycle = lifecycle
        self._restarts = restarts

    def check(self, worker: WorkerRecord, now: float) -> None:
        """Do what is due for one worker, and schedule the next check."""
        if worker.phase is WorkerPhase.STARTING:
            self._kill_at(worker, worker.started_at + self._model.rules.startup_timeout, "startup_timeout", now)
        elif worker.phase is WorkerPhase.STOPPING:
            if worker.stop_by is not None and not worker.kill_reason:
                self._kill_at(worker, worker.stop_by, "stop_grace" if worker.running else "teardown_timeout", now)
        else:
            self._check_cancels(worker, now)
            self._check_drain(worker, now)
            self._check_age(worker, now)

    def check_calm(self, now: float) -> None:
        """Trust the workers again once all of them have lived for the budget's period."""
        if not self._restarts.is_degraded:
            return
        staying = self._model.staying()
        if len(staying) < self._model.size or any(worker.ready_at is None for worker in staying):
            return
        calm_at = max([self._restarts.calm_at, *(w.started_at + self._restarts.period for w in staying)])
        if now >= calm_at:
            self._restarts.worked()
        else:
            self._model.tick_by(calm_at)

    def _kill_at(self, worker: WorkerRecord, limit: float, reason: str, now: float) -> None:
        if now >= limit:
            self._lifecycle.kill(worker, reason)
        else:
            self._model.tick_by(limit)

    def _check_cancels(self, worker: WorkerRecord, now: float) -> None:
        """A cancelled call that has not ended within `cancel_grace` takes its worker out of service (K3, K4)."""
        if not worker.cancels:
            return
        grace = self._model.rules.cancel_grace
        culprit, since = next(iter(worker.cancels.items()))
        if worker.concurrency == 1:
            self._kill_at(worker, since + grace, "cancel_grace", now)
            return
        if now >= since + grace and worker.is_silent_since is None:
            worker.is_silent_since = now  # it must go on answering: else nobody in it can progress (K4)
            self._model.out.append(Cancel(worker.generation, culprit))
        if worker.is_silent_since is not None:
            self._kill_at(worker, worker.is_silent_since + grace, f"unresponsive:{culprit}", now)
        if worker.phase is WorkerPhase.STOPPING or worker.phase is WorkerPhase.RETIRING:
            return
        if now >= since + grace:
            self._lifecycle.retire(worker, "cancel_grace", now)
        else:
            self._model.tick_by(since + grace)

    def _check_drain(self, worker: WorkerRecord, now: float) -> None:
        if not worker.is_leaving:
            return
        if worker.drain_until is not None and now < worker.drain_until:
            self._model.tick_by(worker.drain_until)
        elif worker.drain_until is not None:
            self._lifecycle.end_drain(worker, now)
        self._lifecycle.go_if_done(worker, now)

    def _check_age(self, worker: WorkerRecord, now: float) -> None:
        self._lifecycle.recycle_if_worn(worker, now)
        if worker.phase is WorkerPhase.READY and worker.recycle_at is not None and now < worker.recycle_at:
            self._model.tick_by(worker.recycle_at)
