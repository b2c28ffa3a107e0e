"""Decide which workers start, drain, retire, stop and are killed. Pure; `timeouts` decides when time is up.

Three ways to leave. *Draining* (a planned stop, S8) and *retiring* (a cancelled call that will not end, K3) are
alike: nothing new comes, running calls run to their own end, and sessions whose state lives only there are served
on, for `session_drain` at most. A drained worker is asked to stop; a retired one is killed. *Killed* is at once.
"""

from __future__ import annotations

from collections.abc import Iterable

from .instructions import Kill, Start, Stop
from .model import PoolModel
from .records import SessionRecord, WorkerPhase, WorkerRecord
from .replacements import Replacements
from .restarts import Restarts
from .scheduling import Scheduler
from .session_table import SessionTable


class Lifecycle:
    """Starts, drains and stops the workers of one pool."""

    def __init__(self, model: PoolModel, sessions: SessionTable, scheduler: Scheduler, restarts: Restarts) -> None:
        self._model = model
        self._sessions = sessions
        self._scheduler = scheduler
        self._restarts = restarts
        self._generations = 0
        self.replacements = Replacements(model)

    # -- as many as are wanted --

    def reconcile(self, now: float) -> None:
        """Start or drain workers until as many stay as are wanted; replace the next worn one."""
        if self._model.is_over or not self._model.is_started:
            return
        self.replacements.choose()
        while (surplus := len(self._model.staying()) - self._target()) > 0:
            for worker in sorted(self._model.staying(), key=self._usefulness)[:surplus]:
                self._drain(worker, "resized", now)
        for _ in range(-surplus - self._failed_starts()):
            if now < self._restarts.not_before:
                self._model.tick_by(self._restarts.not_before)
                break
            self._start(now)
        self._drain_if_spared(now)

    def ready(self, worker: WorkerRecord, now: float) -> None:
        """Note that a worker is ready."""
        worker.phase = WorkerPhase.READY
        worker.ready_at = now
        self.replacements.schedule(worker, now)
        self._model.emit("worker.ready", worker, seconds=now - worker.started_at)
        self._scheduler.reserve(now)
        self._scheduler.feed(worker, now)
        self._drain_if_spared(now)

    def reschedule(self, now: float) -> None:
        """Recompute when the workers are to be replaced after a change of the rules."""
        for worker in self._model.workers.values():
            if worker.ready_at is not None:
                self.replacements.schedule(worker, worker.ready_at)
            if worker.is_leaving:
                for record in self._model.pinned(worker):
                    self.loosen(record, worker, now)

    def _target(self) -> int:
        """Return how many workers should stay: one more while a spare is made for one that still works."""
        worn = self._model.workers.get(self.replacements.current or 0)
        return self._model.size + (worn is not None and worn.is_staying)

    def _failed_starts(self) -> int:
        """Return how many did not start in time and are not gone yet: the back-off must see their end first."""
        return sum(worker.kill_reason == "startup_timeout" for worker in self._model.workers.values())

    def _usefulness(self, worker: WorkerRecord) -> tuple[bool, bool, int, int, int]:
        is_worn = worker.generation == self.replacements.current
        bound = sum(record.is_stateful for record in self._model.pinned(worker))
        return not is_worn, worker.phase is not WorkerPhase.STARTING, bound, worker.load, -worker.generation

    def _start(self, now: float) -> None:
        self._generations += 1
        taken = {worker.slot for worker in self._model.staying() if worker.generation != self.replacements.current}
        slot = min(set(range(len(taken) + 1)) - taken)
        worker = self._model.workers[self._generations] = WorkerRecord(
            self._generations, slot, now, self._model.rules.concurrency
        )
        self._model.out.append(Start(worker.generation, slot))
        self._model.tick_by(now + self._model.rules.startup_timeout)

    # -- planned replacements --

    def recycle(self, generations: Iterable[int], reason: str, now: float) -> None:
        """Replace the workers one after another, each successor ready before its turn to drain."""
        self.replacements.want(generations, reason)
        self.reconcile(now)

    def recycle_if_worn(self, worker: WorkerRecord, now: float) -> None:
        reason = self.replacements.wear(worker, now)
        if reason is not None:
            self.recycle([worker.generation], reason, now)

    def _drain_if_spared(self, now: float) -> None:
        worker = self._model.workers.get(self.replacements.current or 0)
        if worker is None or worker.phase is not WorkerPhase.READY:
            return
        ready = sum(w.phase is WorkerPhase.READY for w in self._model.workers.values())
        if ready > self._model.size:
            self._drain(worker, "recycled", now)

    # -- leaving --

    def _drain(self, worker: WorkerRecord, reason: str, now: float) -> None:
        if worker.phase is WorkerPhase.STARTING:
            self.kill(worker, reason)
        else:
            self._begin_leaving(worker, WorkerPhase.DRAINING, reason, now)

    def retire(self, worker: WorkerRecord, reason: str, now: float) -> None:
        """Let it finish what others wait for, then kill it; its successor starts now (K3)."""
        self._model.emit("worker.retiring", worker, reason=reason)
        self._begin_leaving(worker, WorkerPhase.RETIRING, reason, now)
        self.replacements.skip(worker)
        retiring = [w for w in self._model.workers.values() if w.phase is WorkerPhase.RETIRING]
        if len(retiring) > self._model.size:
            self.kill(retiring[0], "too_many_retiring")
        self.reconcile(now)

    def _begin_leaving(self, worker: WorkerRecord, phase: WorkerPhase, reason: str, now: float) -> None:
        if not worker.is_leaving:
            worker.drain_until = now + self._model.rules.session_drain
            self._model.tick_by(worker.drain_until)
        worker.phase = phase
        worker.leave_reason = reason
        self._scheduler.release(worker, now)
        for record in self._model.pinned(worker):
            self.loosen(record, worker, now)
        self.go_if_done(worker, now)

    def loosen(self, record: SessionRecord, worker: WorkerRecord, now: float) -> None:
        """Let the session leave a worker that leaves, unless it runs there or has its only state there."""
        is_anchored = self._model.binds(record) and not record.is_durable
        if record.running or record.pin != worker.generation or (is_anchored and worker.drain_until is not None):
            return
        if is_anchored:
            self._sessions.lose(record, _loss(worker), worker.generation)
        else:
            self._sessions.leave(record)
        self._scheduler.redirect(record, now)

    def end_drain(self, worker: WorkerRecord, now: float) -> None:
        """End the time of its sessions; calls that run go on to their own end (S8)."""
        worker.drain_until = None
        for record in self._model.pinned(worker):
            if self._model.binds(record) and not record.is_durable:
                self._sessions.lose(record, _loss(worker), worker.generation)
                self._scheduler.redirect(record, now)
            else:
                self.loosen(record, worker, now)
        self.go_if_done(worker, now)

    def go_if_done(self, worker: WorkerRecord, now: float) -> None:
        """Stop or kill a worker that leaves, once nothing holds it."""
        if worker.phase is WorkerPhase.DRAINING:
            if not worker.running and not worker.sessions:
                self.stop(worker, worker.leave_reason, now)
        elif worker.phase is WorkerPhase.RETIRING and worker.live_calls == 0 and not self._can_serve(worker):
            self.kill(worker, worker.leave_reason)

    def _can_serve(self, worker: WorkerRecord) -> bool:
        """Whether a retiring worker has a free slot, and a session that lives there and is not stuck itself."""
        if worker.load >= worker.concurrency:
            return False
        return any(not self._model.sessions[key].is_stuck for key in worker.sessions)

    # -- the end --

    def stop(self, worker: WorkerRecord, reason: str, now: float) -> None:
        """Ask it to exit; it is killed if it has not after `teardown_timeout`, or with calls after `stop_grace`."""
        if worker.phase is WorkerPhase.STARTING:
            self.kill(worker, reason)
            return
        worker.phase = WorkerPhase.STOPPING
        worker.leave_reason = worker.leave_reason or reason
        rules = self._model.rules
        worker.stop_by = now + (rules.stop_grace if worker.running else rules.teardown_timeout)
        self._model.tick_by(worker.stop_by)
        self._model.out.append(Stop(worker.generation, worker.leave_reason))

    def kill(self, worker: WorkerRecord, reason: str) -> None:
        """Kill it now; what it leaves behind is settled when it is gone."""
        if not worker.kill_reason:
            worker.kill_reason = reason
            worker.phase = WorkerPhase.STOPPING
            self._model.out.append(Kill(worker.generation, reason))


def _loss(worker: WorkerRecord) -> str:
    """Return why a session that lived there is lost, in the words of RULES S6."""
    return "resized" if worker.leave_reason == "resized" else "recycled"
