"""Decide who gets which call, and which worker starts, stops or dies. Pure: no clock, no I/O, no thread.

Events are methods; each takes `now` (seconds on one monotonic clock) and returns instructions for the dispatcher to
carry out, in order. `due` says when `tick` wants to be called next. The tests call `invariants.check` after each step
of random histories.

The decisions live in the parts: `admission` (which calls are taken), `placement` (which worker may take one),
`scheduling` (sent or queued), `session_table` and `affinity` (sessions and their workers), `lifecycle`, `replacements`
and `timeouts` (workers come and go), `deaths` (what a dead one leaves behind). The parts share the `PoolModel` that
this is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from random import Random

from .admission import Admission
from .affinity import Affinity
from .deaths import Deaths
from .instructions import Cancel, EndReason, Fail, Instruction
from .lifecycle import Lifecycle
from .model import NEVER, PoolModel, Rules
from .placement import Placement
from .poison import Poison
from .records import READY, CallRecord, Phase, SessionRecord, WorkerPhase, WorkerRecord
from .restarts import ENOUGH_CALLS, Restarts
from .scheduling import Scheduler
from .session_table import SessionTable
from .timeouts import WorkerTimeouts

__all__ = ["NEVER", "PoolState", "Rules"]


class PoolState(PoolModel):
    """The state of one pool. Not thread-safe: the pool's lock guards it."""

    def __init__(self, rules: Rules, *, random: Random | None = None) -> None:
        super().__init__(rules, random or Random())
        self.poison = Poison()
        self.restarts = Restarts(*rules.restart_budget)
        self._affinity = Affinity(self)
        self._sessions = SessionTable(self, self._affinity)
        self._placement = Placement(self)
        self._scheduler = Scheduler(self, self._placement, self._affinity, self._sessions, self.poison)
        self._lifecycle = Lifecycle(self, self._sessions, self._scheduler, self.restarts)
        self._timeouts = WorkerTimeouts(self, self._lifecycle, self.restarts)
        self._admission = Admission(self, self._placement, self._sessions, self.poison, self.restarts)
        self._deaths = Deaths(self, self._sessions, self._scheduler, self._lifecycle, self.poison, self.restarts)

    # -- calls ---------------------------------------------------------------------------------------------------

    def submit(self, call: CallRecord, now: float, *, is_late: bool = False) -> list[Instruction]:
        """Take a new call: send it, queue it, or refuse it, also if it `is_late`: its deadline has passed."""
        self.order = call.order = self.order + 1
        refusal = self._admission.refusal(call, now) or (Fail(call, EndReason.LATE) if is_late else None)
        if refusal is not None:
            call.phase = Phase.DONE
            return [*self.flush(), refusal]
        if call.record is not None:
            self._scheduler.submit(call, call.record, now)
        else:
            self._scheduler.place(call, now)
        return self.flush()

    def take_again(self, call: CallRecord, now: float) -> list[Instruction]:
        """Give an admitted call that is in no queue its old place back (see `recovery`)."""
        if call.session is None:
            self._scheduler.place(call, now)
        elif (refusal := self._admission.enter_session(call, call.session, now)) is not None:
            call.phase = Phase.DONE
            return [*self.flush(), refusal]
        elif call.record is not None:
            self._scheduler.submit(call, call.record, now)
        return self.flush()

    def finished(
        self, call: CallRecord, now: float, *, held: bool | None = None, retire: str | None = None
    ) -> list[Instruction]:
        """Note that its worker answered: free the slot and use it.

        `held` is what the reply says of the session's state; `retire` is why the worker must be replaced.
        """
        worker = self.workers.get(call.generation)
        if worker is None or call.id not in worker.running:
            return self.flush()
        self._scheduler.leave_worker(call, worker)
        worker.answered += 1
        if worker.answered == ENOUGH_CALLS:
            self.restarts.worked()
        if call.record is not None:
            self._finished_in_session(call, call.record, worker, now, held)
        if call.is_alone:
            self.poison.clear(call)
            self._scheduler.reserve(now)
        if self.queued:
            self._admission.count_end(now)
            self._scheduler.feed(worker, now)
        else:
            self._admission.last_end = None
        if worker.phase is not READY or retire is not None:
            self._finished_in_leaving(worker, now, retire)
        if self.rules.recycle_after_calls is not None:
            self._lifecycle.recycle_if_worn(worker, now)
        return self.flush()

    def abandon(self, call: CallRecord, now: float) -> list[Instruction]:
        """Drop a call that nobody waits for if it was not sent, else cancel it (K0, K1)."""
        if call.queue is not None:
            self._scheduler.drop(call, now)
        elif call.phase is Phase.RUNNING:
            call.phase = Phase.ABANDONED
            worker = self.workers[call.generation]
            worker.cancels[call.id] = now
            if worker.is_silent_since is None:
                worker.is_silent_since = now
            self.out.append(Cancel(worker.generation, call.id))
            self.emit("call.abandoned", worker, call=call.id, command=call.command)
            self.tick_by(now + self.rules.cancel_grace)
            self._lifecycle.go_if_done(worker, now)
        return self.flush()

    def has_room(self, session: str) -> bool:
        """Whether a worker that may run the session's calls could take one now."""
        return self._placement.has_room(self.sessions.get(session))

    # -- workers -------------------------------------------------------------------------------------------------

    def start(self, now: float) -> list[Instruction]:
        """Begin: start workers up to the pool's size."""
        self.is_started = True
        self._lifecycle.reconcile(now)
        return self.flush()

    def worker_ready(self, generation: int, now: float) -> list[Instruction]:
        """Give work to a worker that is ready."""
        worker = self.workers.get(generation)
        if worker is not None and worker.phase is WorkerPhase.STARTING:
            self._lifecycle.ready(worker, now)
            self._timeouts.check_calm(now)
        return self.flush()

    def died(
        self,
        generation: int,
        now: float,
        *,
        by_itself: bool = True,
        unstarted: Collection[int] = (),
        cause: str = "died",
    ) -> list[Instruction]:
        """Handle a worker's end. `unstarted` are the calls that provably cannot have begun (C8)."""
        worker = self.workers.pop(generation, None)
        if worker is not None:
            self._deaths.settle(worker, now, by_itself=by_itself, unstarted=unstarted, cause=cause)
        return self.flush()

    def kill(self, generation: int, reason: str) -> list[Instruction]:
        """Kill a worker whose pipes cannot be trusted any more; the fault is not its own."""
        worker = self.workers.get(generation)
        if worker is not None:
            self._lifecycle.kill(worker, reason)
        return self.flush()

    def pong(self, generation: int) -> None:
        """Note a sign of life of the worker."""
        worker = self.workers.get(generation)
        if worker is not None:
            worker.is_silent_since = None

    def measured(self, generation: int, rss: int, now: float) -> list[Instruction]:
        """Note that the worker and its children use `rss` bytes."""
        worker = self.workers.get(generation)
        if worker is not None:
            worker.rss = rss
            self._lifecycle.recycle_if_worn(worker, now)
        return self.flush()

    # -- the operator --------------------------------------------------------------------------------------------

    def resize(self, size: int, now: float) -> list[Instruction]:
        """Aim at `size` workers; those too many drain."""
        self.size = size
        self._lifecycle.reconcile(now)
        return self.flush()

    def adopt(self, rules: Rules, now: float) -> list[Instruction]:
        """Apply other rules from now on; what was taken by the old ones stays taken."""
        self.rules = rules
        self.size = rules.size
        self.restarts.adopt(*rules.restart_budget)
        self._lifecycle.reschedule(now)
        self._sessions.reschedule(now)
        for record in tuple(self.sessions.values()):
            self._scheduler.redirect(record, now)
        self._lifecycle.reconcile(now)
        self._scheduler.feed_all(now)
        self.tick_by(now)
        return self.flush()

    def recycle(
        self, now: float, reason: str = "recycled", generations: Iterable[int] | None = None
    ) -> list[Instruction]:
        """Replace workers (all, or the given ones), one at a time, each successor ready before its turn to drain."""
        self._lifecycle.recycle(self.workers if generations is None else generations, reason, now)
        return self.flush()

    def close(self, now: float) -> list[Instruction]:
        """Take no more calls; end those that were not sent."""
        self.is_closed = self.is_over = True
        for call in self.queued_calls():
            self.dequeue(call)
            self.fail(call, EndReason.CLOSED)
        for worker in self.workers.values():
            worker.exclusive = None
        for record in tuple(self.sessions.values()):
            self._sessions.ended(record)
        return self.flush()

    def stop_workers(self, now: float) -> list[Instruction]:
        """Ask every worker to exit; running calls have had their time."""
        for worker in self.workers.values():
            if worker.phase is not WorkerPhase.STOPPING:
                self._lifecycle.stop(worker, "stopped", now)
        return self.flush()

    @property
    def is_recycling(self) -> bool:
        """Whether planned replacements are under way or wait for their turn."""
        return self._lifecycle.replacements.is_under_way

    # -- sessions ------------------------------------------------------------------------------------------------

    def open_session(self, key: str, now: float, *, is_durable: bool = False, fresh: bool = False) -> list[Instruction]:
        """Make the session known; `fresh` drops what it was.

        Raises:
            KeyError: the pool holds `session_limit` sessions, and none of them can be dropped (S7).
        """
        known = self.sessions.get(key)
        if known is not None and fresh:
            self._sessions.begin_afresh(known)
        if self._sessions.open(key, now, is_durable=is_durable) is None:
            raise KeyError(key)
        return self._after_session(known, now)

    def restore_session(self, key: str) -> bool:
        """Have a new durable session get, with its first call, the state that is kept for it; False if it cannot."""
        record = self.sessions.get(key)
        if record is None or not record.is_durable or record.is_stateful or not record.is_idle:
            return False
        record.is_stateful = record.must_restore = True
        return True

    def close_session(self, key: str, now: float) -> list[Instruction]:
        """Drop the session once nothing of it runs; what is called in it from now on begins afresh."""
        record = self.sessions.get(key)
        if record is not None:
            self._sessions.close(record)
        return self._after_session(record, now)

    def evict_nothing(self) -> None:
        """Drop no session to make room for another, until `settle_sessions` (see `recovery`)."""
        self._sessions.evict_nothing()

    def settle_sessions(self, now: float) -> None:
        """Find out anew which sessions have ended, and which may be dropped (see `recovery`)."""
        self._sessions.settle_all()
        for record in tuple(self.sessions.values()):
            self._scheduler.advance(record, now)

    # -- time ----------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Instruction]:
        """Do what is due: graces that ran out, recycling by age, sessions that expired, starts after a back-off."""
        self.due = NEVER
        for worker in tuple(self.workers.values()):
            self._timeouts.check(worker, now)
        self._sessions.sweep(now)
        for worker in tuple(self.workers.values()):
            self._lifecycle.go_if_done(worker, now)
        self._timeouts.check_calm(now)
        self._lifecycle.reconcile(now)
        self._scheduler.reserve(now)
        self._scheduler.feed_all(now)
        self.poison.drop_old(now)
        return self.flush()

    # -- how -----------------------------------------------------------------------------------------------------

    def _after_session(self, record: object, now: float) -> list[Instruction]:
        """Let the session's next calls start, and a worker that waited for it leave."""
        known = self.sessions.get(getattr(record, "key", ""))
        if known is not None:
            self._scheduler.advance(known, now)
        for worker in tuple(self.workers.values()):
            if worker.is_leaving:
                self._lifecycle.go_if_done(worker, now)
        self._scheduler.reserve(now)
        self._scheduler.feed_all(now)
        return self.flush()

    def _finished_in_session(
        self, call: CallRecord, record: SessionRecord, worker: WorkerRecord, now: float, held: bool | None
    ) -> None:
        self._scheduler.leave_session(call, record)
        if held is not None:
            self._affinity.note_state(record, held, worker.generation)
            self._scheduler.to_its_worker(record)
        if worker.is_leaving:
            self._lifecycle.loosen(record, worker, now)
        self._scheduler.after_end(call, now)

    def _finished_in_leaving(self, worker: WorkerRecord, now: float, retire: str | None) -> None:
        if retire is not None and worker.phase in (WorkerPhase.READY, WorkerPhase.DRAINING):
            self._lifecycle.retire(worker, retire, now)
        elif worker.is_leaving:
            self._lifecycle.go_if_done(worker, now)
