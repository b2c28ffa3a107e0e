"""Decide what becomes of the calls, the sessions and the queues when a worker is gone. Pure."""

from __future__ import annotations

from collections.abc import Collection

from .instructions import EndReason
from .lifecycle import Lifecycle
from .model import PoolModel
from .poison import Poison
from .records import CallRecord, Phase, SessionRecord, WorkerPhase, WorkerRecord
from .restarts import ENOUGH_CALLS, Restarts
from .scheduling import Scheduler
from .session_table import SessionTable


class Deaths:
    """Decides about all that the dead workers of one pool held."""

    def __init__(
        self,
        model: PoolModel,
        sessions: SessionTable,
        scheduler: Scheduler,
        lifecycle: Lifecycle,
        poison: Poison,
        restarts: Restarts,
    ) -> None:
        self._model = model
        self._sessions = sessions
        self._scheduler = scheduler
        self._lifecycle = lifecycle
        self._poison = poison
        self._restarts = restarts

    def settle(
        self, worker: WorkerRecord, now: float, *, by_itself: bool, unstarted: Collection[int], cause: str
    ) -> None:
        """End or redispatch its calls, lose or free its sessions, replace it. It is out of the pool already."""
        is_boot_failure = worker.ready_at is None and worker.kill_reason in ("", "startup_timeout")
        is_planned = bool(worker.leave_reason or worker.kill_reason) and not is_boot_failure
        is_by_call = self._blame(worker, now) if by_itself and not worker.kill_reason else False
        self._note(worker, now, is_planned=is_planned, is_by_call=is_by_call)
        reason = _loss(worker, cause)
        touched = self._end_calls(worker, now, unstarted, reason)
        self._leave_sessions(worker, reason, touched)
        for record in sorted(touched.values(), key=lambda record: record.key):
            self._sessions.ended(record)
            self._scheduler.redirect(record, now)
        self._lifecycle.replacements.gone(worker)
        self._fail_queue_if_hopeless(now, is_boot_failure=is_boot_failure)
        self._lifecycle.reconcile(now)
        self._scheduler.reserve(now)
        self._scheduler.feed_all(now)

    # -- who is to blame --

    def _blame(self, worker: WorkerRecord, now: float) -> bool:
        """Record who may be to blame (C7b); True if the death counts against a call and not against the worker."""
        if not worker.running:
            return False
        alone = self._alone(worker)
        if alone is None:
            for call in worker.running.values():
                self._poison.suspect(call, now)
            return False
        if not self._poison.count_kill(alone, now):
            return False
        self._restarts.uncount_last()
        return True

    def _alone(self, worker: WorkerRecord) -> CallRecord | None:
        """Return the call that ran alone, or with nothing beside it but what its own tools had asked for."""
        calls = list(worker.running.values())
        outer = [call for call in calls if not call.is_nested] or calls
        if len(outer) != 1:
            return None
        is_family = all(t is outer[0] or (t.session is not None and t.session == outer[0].session) for t in calls)
        return outer[0] if is_family else None

    def _note(self, worker: WorkerRecord, now: float, *, is_planned: bool, is_by_call: bool) -> None:
        reason = worker.kill_reason or worker.leave_reason or "died"
        event = "worker.stopped" if is_planned else "worker.died"
        self._model.emit(event, worker, reason=reason, calls=len(worker.running))
        if is_planned or is_by_call or worker.answered >= ENOUGH_CALLS:
            return
        was_degraded = self._restarts.is_degraded
        self._restarts.count_early_death(now, self._model.random.uniform(0.5, 1.0))
        if self._restarts.is_degraded and not was_degraded:
            self._model.emit("pool.degraded", reason="restart_budget", deaths=self._restarts.recent)

    # -- its calls and sessions --

    def _end_calls(
        self, worker: WorkerRecord, now: float, unstarted: Collection[int], reason: str
    ) -> dict[str, SessionRecord]:
        """End its calls, or queue them again at their places; return the sessions that must go on."""
        calls, worker.running, worker.cancels = list(worker.running.values()), {}, {}
        touched: dict[str, SessionRecord] = {}
        for call in calls:
            if call.record is not None:
                self._scheduler.leave_session(call, call.record)
                call.record.last_used = now
                touched[call.record.key] = call.record
        for call in calls:
            if call.phase is Phase.ABANDONED:
                call.phase = Phase.DONE
            else:
                self._end_call(call, worker, now, is_unstarted=call.id in unstarted, reason=reason)
        return touched

    def _end_call(self, call: CallRecord, worker: WorkerRecord, now: float, *, is_unstarted: bool, reason: str) -> None:
        record = call.record
        is_lost = record is not None and (
            record.lost is not None
            or not record.is_of_this_life(call)
            or (self._model.binds(record) and not record.is_durable)
        )
        may_go_on = is_unstarted or call.retries > 0
        if call.is_nested or self._model.is_over or not may_go_on or (is_lost and not is_unstarted):
            self._model.fail(call, EndReason.DIED, started="no" if is_unstarted else "unknown")
        elif is_lost:
            self._model.fail(call, EndReason.SESSION_LOST, reason=reason, generation=worker.generation)
        elif (refusal := self._poison.verdict(call, now)) is not None:
            self._model.fail(call, EndReason.POISON, **refusal)
        else:
            self._redispatch(call, is_unstarted=is_unstarted)

    def _redispatch(self, call: CallRecord, *, is_unstarted: bool) -> None:
        """Queue the call again at its place; nothing else of its session may overtake it."""
        if not is_unstarted:
            call.retries -= 1
        if call.record is not None:
            self._model.enqueue_in_session(call, call.record)
        else:
            self._model.enqueue(call, self._model.suspects if call.is_alone else self._model.queue)
        self._model.emit("call.redispatched", call=call.id, started=not is_unstarted)

    def _leave_sessions(self, worker: WorkerRecord, reason: str, touched: dict[str, SessionRecord]) -> None:
        for key in sorted(worker.sessions):
            record = self._model.sessions[key]
            if self._model.binds(record) and not record.is_durable:
                self._sessions.lose(record, reason, worker.generation)
            else:
                self._sessions.leave(record)
            touched[key] = record
        worker.sessions.clear()

    # -- nobody is left --

    def _fail_queue_if_hopeless(self, now: float, *, is_boot_failure: bool) -> None:
        """Fail the queued calls at once if no worker serves and none will."""
        if any(worker.is_serving for worker in self._model.workers.values()):
            return
        if self._restarts.is_degraded:
            why = EndReason.UNHEALTHY
        elif is_boot_failure and not self._model.has_worker(WorkerPhase.STARTING):
            why = EndReason.BOOT
        else:
            return
        for call in self._model.queued_calls():
            self._model.dequeue(call)
            self._model.fail(call, why, retry_in=self._restarts.wait(now))
        for record in tuple(self._model.sessions.values()):
            self._sessions.ended(record)


def _loss(worker: WorkerRecord, cause: str) -> str:
    """Return why the sessions that lived there are lost, in the words of RULES S6."""
    if worker.kill_reason or cause == "memory":
        return "killed"
    return worker.leave_reason if worker.leave_reason in ("recycled", "resized") else "died"
