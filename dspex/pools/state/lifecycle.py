"""Decide which workers start, drain, retire, stop and are killed, and when. Pure.

Three ways to leave. *Draining* (a planned stop, S8) and *retiring* (a cancelled call that will not end, K3) are
alike: nothing new comes, running calls run to their own end, and sessions whose state lives only there are served
on, for `session_drain` at most. A drained worker is asked to stop; a retired one is killed. *Killed* is at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from .affinity import Affinity
from .instructions import Cancel, Kill, Start, Stop
from .model import PoolModel
from .records import SessionRecord, WorkerPhase, WorkerRecord
from .restarts import Restarts
from .scheduling import Scheduler

JITTER = 0.1  # of recycle_after_age, so that workers started together do not all leave together


class Lifecycle:
    """Starts, drains and stops the workers of one pool."""

    def __init__(self, model: PoolModel, affinity: Affinity, scheduler: Scheduler, restarts: Restarts) -> None:
        self._model = model
        self._affinity = affinity
        self._scheduler = scheduler
        self._restarts = restarts
        self._generations = 0
        self._wanted: OrderedDict[int, str] = OrderedDict()  # generations to recycle, and why
        self.recycling: int | None = None  # the planned replacement that is under way: one at a time

    # -- as many as are wanted --

    def reconcile(self, now: float) -> None:
        """Start or drain workers until as many stay as are wanted; replace the next worn one."""
        if self._model.is_over or not self._model.is_started:
            return
        self._choose_next()
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
        self._schedule_recycling(worker, now)
        self._model.emit("worker.ready", worker, seconds=now - worker.started_at)
        self._scheduler.reserve(now)
        self._scheduler.feed(worker, now)
        self._drain_if_spared(now)

    def reschedule(self, now: float) -> None:
        """Recompute when the workers are to be replaced after a change of the rules."""
        for worker in self._model.workers.values():
            if worker.ready_at is not None:
                self._schedule_recycling(worker, worker.ready_at)
            if worker.is_leaving:
                for record in self._model.pinned(worker):
                    self.loosen(record, worker, now)

    @property
    def is_replacing(self) -> bool:
        """Return whether planned replacements are under way or wait for their turn."""
        return self.recycling is not None or bool(self._wanted)

    def gone(self, worker: WorkerRecord) -> None:
        """Note that a worker is out of the pool."""
        self._wanted.pop(worker.generation, None)
        if self.recycling == worker.generation:
            self.recycling = None

    def _target(self) -> int:
        """Return how many workers should stay: one more while a spare is made for one that still works."""
        worn = self._model.workers.get(self.recycling or 0)
        return self._model.size + (worn is not None and worn.is_staying)

    def _failed_starts(self) -> int:
        """Return how many did not start in time and are not gone yet: the back-off must see their end first."""
        return sum(worker.kill_reason == "startup_timeout" for worker in self._model.workers.values())

    def _usefulness(self, worker: WorkerRecord) -> tuple[bool, bool, int, int, int]:
        is_worn = worker.generation == self.recycling
        bound = sum(record.is_stateful for record in self._model.pinned(worker))
        return not is_worn, worker.phase is not WorkerPhase.STARTING, bound, worker.load, -worker.generation

    def _start(self, now: float) -> None:
        self._generations += 1
        taken = {worker.slot for worker in self._model.staying() if worker.generation != self.recycling}
        slot = min(set(range(len(taken) + 1)) - taken)
        worker = self._model.workers[self._generations] = WorkerRecord(
            self._generations, slot, now, self._model.rules.concurrency
        )
        self._model.out.append(Start(worker.generation, slot))
        self._model.tick_by(now + self._model.rules.startup_timeout)

    # -- planned replacements --

    def recycle(self, generations: Iterable[int], reason: str, now: float) -> None:
        """Replace the workers one after another, each successor ready before its turn to drain."""
        for generation in sorted(generations):
            worker = self._model.workers.get(generation)
            if worker is not None and worker.is_staying:
                self._wanted.setdefault(generation, reason)
        self.reconcile(now)

    def _schedule_recycling(self, worker: WorkerRecord, ready_at: float) -> None:
        age = self._model.rules.recycle_after_age
        worker.recycle_at = None
        if age is not None:
            worker.recycle_at = ready_at + age * self._model.random.uniform(1 - JITTER, 1 + JITTER)
            self._model.tick_by(worker.recycle_at)

    def recycle_if_worn(self, worker: WorkerRecord, now: float) -> None:
        reason = self._wear(worker, now) if worker.phase is WorkerPhase.READY else None
        if reason is not None and worker.generation not in self._wanted:
            self.recycle([worker.generation], reason, now)

    def _wear(self, worker: WorkerRecord, now: float) -> str | None:
        rules = self._model.rules
        if rules.recycle_after_calls is not None and worker.answered >= rules.recycle_after_calls:
            return "calls"
        if rules.recycle_after_memory is not None and worker.rss >= rules.recycle_after_memory:
            return "memory"
        return "age" if worker.recycle_at is not None and now >= worker.recycle_at else None

    def _choose_next(self) -> None:
        while self.recycling is None and self._wanted:
            generation = next(iter(self._wanted))
            worker = self._model.workers.get(generation)
            if worker is None or not worker.is_staying:
                del self._wanted[generation]
                continue
            self.recycling = generation
            self._model.emit("worker.recycling", worker, reason=self._wanted[generation])

    def _drain_if_spared(self, now: float) -> None:
        worker = self._model.workers.get(self.recycling or 0)
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
        if self.recycling == worker.generation:
            self.recycling = None
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
            self._affinity.lose(record, _loss(worker), worker.generation)
        else:
            self._affinity.leave(record)
        self._scheduler.redirect(record, now)

    def _end_drain(self, worker: WorkerRecord, now: float) -> None:
        """End the time of its sessions; calls that run go on to their own end (S8)."""
        worker.drain_until = None
        for record in self._model.pinned(worker):
            if self._model.binds(record) and not record.is_durable:
                self._affinity.lose(record, _loss(worker), worker.generation)
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
        """Ask it to exit; it is killed if it has not after `stop_grace`."""
        if worker.phase is WorkerPhase.STARTING:
            self.kill(worker, reason)
            return
        worker.phase = WorkerPhase.STOPPING
        worker.leave_reason = worker.leave_reason or reason
        worker.stop_by = now + self._model.rules.stop_grace
        self._model.tick_by(worker.stop_by)
        self._model.out.append(Stop(worker.generation, worker.leave_reason))

    def kill(self, worker: WorkerRecord, reason: str) -> None:
        """Kill it now; what it leaves behind is settled when it is gone."""
        if not worker.kill_reason:
            worker.kill_reason = reason
            worker.phase = WorkerPhase.STOPPING
            self._model.out.append(Kill(worker.generation, reason))

    # -- time --

    def check(self, worker: WorkerRecord, now: float) -> None:
        """Do what is due for one worker, and schedule the next check."""
        if worker.phase is WorkerPhase.STARTING:
            self._kill_at(worker, worker.started_at + self._model.rules.startup_timeout, "startup_timeout", now)
        elif worker.phase is WorkerPhase.STOPPING:
            if worker.stop_by is not None and not worker.kill_reason:
                self._kill_at(worker, worker.stop_by, "stop_grace", now)
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
            self.kill(worker, reason)
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
            self.retire(worker, "cancel_grace", now)
        else:
            self._model.tick_by(since + grace)

    def _check_drain(self, worker: WorkerRecord, now: float) -> None:
        if not worker.is_leaving:
            return
        if worker.drain_until is not None and now < worker.drain_until:
            self._model.tick_by(worker.drain_until)
        elif worker.drain_until is not None:
            self._end_drain(worker, now)
        self.go_if_done(worker, now)

    def _check_age(self, worker: WorkerRecord, now: float) -> None:
        self.recycle_if_worn(worker, now)
        if worker.phase is WorkerPhase.READY and worker.recycle_at is not None and now < worker.recycle_at:
            self._model.tick_by(worker.recycle_at)


def _loss(worker: WorkerRecord) -> str:
    """Return why a session that lived there is lost, in the words of RULES S6."""
    return "resized" if worker.leave_reason == "resized" else "recycled"
