"""Send calls to workers, and queue those that must wait. Pure; `placement` says which worker may take one.

A call that no worker can take now stands in the pool's queue, in its pinned worker's queue, among the suspects, or,
behind another call of its own session, in that session's own queue. Free slots go to the call whose turn it is among
those that the worker may run. A call gets its turn when it comes, or, if others of its session stand before it, when
they are gone: however many calls a session has, it takes turns with everybody else. So do those who share the pool: see
`turns`.
"""

from __future__ import annotations

from .affinity import Affinity
from .instructions import EndReason, Send
from .model import PoolModel
from .placement import Placement
from .poison import Poison
from .records import CallRecord, Phase, SessionRecord, WorkerPhase, WorkerRecord
from .session_table import SessionTable

RUNNING, DONE = Phase.RUNNING, Phase.DONE  # for hot paths, as READY


class Scheduler:
    """Assigns the calls of one pool to its workers."""

    def __init__(
        self, model: PoolModel, placement: Placement, affinity: Affinity, sessions: SessionTable, poison: Poison
    ) -> None:
        self._model = model
        self._placement = placement
        self._sessions = sessions
        self._affinity = affinity
        self._poison = poison

    # -- a call comes --

    def submit(self, call: CallRecord, record: SessionRecord, now: float) -> None:
        """Send a session's new call, or queue it where it belongs."""
        self._sessions.use(record, now)
        if record.pin is None:
            call.is_nested = False  # the call that it was made for is gone: it waits like any other
        if call.is_nested or (not record.waiting.calls and record.admits(call)):
            self.place(call, now)
        else:
            self._model.enqueue_in_session(call, record)

    def place(self, call: CallRecord, now: float) -> None:
        """Send the call to the worker that suits it best, or queue it."""
        record = call.record
        if not call.turn:
            call.turn = self._model.turns.give(call.share)
        if call.is_nested:
            self._place_nested(call, record, now)
        elif call.is_alone:
            self._model.enqueue(call, self._model.suspects)
            self.reserve(now)
        elif (worker := self._placement.destination(record)) is not None:
            self.send(call, worker)
        elif record is not None and record.pin in self._model.workers and self._model.binds(record):
            self._model.enqueue(call, self._model.workers[record.pin].queue)
        else:
            self._model.enqueue(call, self._model.queue)

    def send(self, call: CallRecord, worker: WorkerRecord) -> None:
        """Send the call to the worker; whoever sent it lets its session advance afterwards."""
        call.phase = RUNNING
        self._model.turns.served(call)
        call.generation = worker.generation
        worker.running[call.id] = call
        if not call.is_nested:
            worker.load += 1
        record, restore = call.record, None
        if record is not None:
            restore = self._affinity.pin(record, worker)
            record.running[call.id] = call
            record.writing += call.use == "write"
        self._model.out.append(Send(call, worker.generation, restore))

    def _place_nested(self, call: CallRecord, record: SessionRecord | None, now: float) -> None:
        """Send a call that a running call's tool waits for beyond `concurrency`, or fail it at once (C14)."""
        generation = call.generation if record is None else record.pin  # where the call runs whose tool asks
        pinned = self._model.workers.get(generation or 0)
        if pinned is not None and pinned.phase is not WorkerPhase.STOPPING:
            self.send(call, pinned)
        elif pinned is not None and record is not None and self._model.binds(record):
            self._model.fail(call, EndReason.DEADLOCK)
        elif ready := self._placement.ready():
            self.send(call, min(ready, key=lambda worker: (worker.exclusive is not None, len(worker.running))))
        elif self._model.is_over:
            self._model.fail(call, EndReason.CLOSED)
        elif record is None and self._model.has_worker(WorkerPhase.STARTING):
            self._model.enqueue(call, self._model.queue)
        else:
            self._model.fail(call, EndReason.DEADLOCK)

    # -- a slot is free --

    def feed(self, worker: WorkerRecord, now: float) -> None:
        """Send the worker the calls that it may start, in turn."""
        while (call := self._next_for(worker)) is not None:
            self._model.dequeue(call)
            if not (self._poison.is_quiet or self._is_acceptable(call, worker, now)):
                continue
            self.send(call, worker)
            if call.record is not None:
                self.advance(call.record, now)

    def feed_all(self, now: float) -> None:
        for worker in sorted(self._model.workers.values(), key=lambda worker: worker.load):
            self.feed(worker, now)

    def advance(self, record: SessionRecord, now: float) -> None:
        """Let the session's next calls go, as far as order and writers allow."""
        while (call := record.waiting.first()) is not None and record.admits(call):
            self._model.dequeue(call)
            self.place(call, now)

    def _next_for(self, worker: WorkerRecord) -> CallRecord | None:
        """Return the queued call that the worker may start now, and whose turn is first."""
        if worker.load >= worker.concurrency or not worker.is_serving:
            return None
        if worker.exclusive is not None:
            is_free = not worker.running and worker.exclusive.phase is Phase.QUEUED
            return worker.exclusive if is_free else None
        pinned = worker.queue.first()
        if worker.phase is not WorkerPhase.READY:
            return pinned
        shared = self._model.queue.first()
        if pinned is None or (shared is not None and shared.turn < pinned.turn):
            return shared
        return pinned

    def _is_acceptable(self, call: CallRecord, worker: WorkerRecord, now: float) -> bool:
        """Check a queued call again, as others like it may have died: it may be refused, or have to run alone."""
        was_alone = call.is_alone
        refusal = self._poison.verdict(call, now)
        if refusal is None and call.is_alone == was_alone:
            return True
        if worker.exclusive is call:
            worker.exclusive = None
        if refusal is None:
            self._model.enqueue(call, self._model.suspects)
        else:
            self._model.fail(call, EndReason.POISON, **refusal)
            self.after_end(call, now)
        self.reserve(now)
        return False

    # -- suspects --

    def reserve(self, now: float) -> None:
        """Keep a worker free for the next suspect: one worker at a time."""
        if not self._model.suspects or any(w.exclusive is not None for w in self._model.workers.values()):
            return
        for call in self._model.suspects:
            worker = self._placement.for_suspect(call)
            if worker is not None:
                worker.exclusive = call
                self.feed(worker, now)
                return

    def release(self, worker: WorkerRecord, now: float) -> None:
        """Stop keeping a worker free."""
        if worker.exclusive is not None:
            worker.exclusive = None
            self.feed(worker, now)
            self.reserve(now)

    # -- a call ends --

    def leave_worker(self, call: CallRecord, worker: WorkerRecord) -> None:
        """Free the slot of a call that ran."""
        del worker.running[call.id]
        if worker.cancels and worker.cancels.pop(call.id, None) is not None and not worker.cancels:
            worker.is_silent_since = None
        if not call.is_nested:
            worker.load -= 1
        if worker.exclusive is call:
            worker.exclusive = None
        call.phase = DONE

    def leave_session(self, call: CallRecord, record: SessionRecord) -> None:
        """Take a call that ran out of its session."""
        if record.running.pop(call.id, None) is not None:
            record.writing -= call.use == "write"

    def drop(self, call: CallRecord, now: float) -> None:
        """Take an unsent call out, and let those behind it go."""
        self._model.dequeue(call)
        call.phase = Phase.DONE
        self.after_end(call, now)
        keeper = self._keeper(call)
        if keeper is not None:
            self.release(keeper, now)

    def after_end(self, call: CallRecord, now: float) -> None:
        """Let the session of a call that ended go on."""
        record = call.record
        if record is not None:
            record.last_used = now
            self._sessions.ended(record)
            self.advance(record, now)

    def to_its_worker(self, record: SessionRecord) -> None:
        """Move a queued call to the worker on which its session has state by now."""
        call = record.head
        if call is not None and call.queue is self._model.queue and record.pin in self._model.workers:
            self._model.dequeue(call)
            self._model.enqueue(call, self._model.workers[record.pin].queue)

    def redirect(self, record: SessionRecord, now: float) -> None:
        """Place the session's queued call again: its worker changed."""
        call = record.head
        keeper = self._keeper(call)
        if keeper is not None:
            keeper.exclusive = None
        if call is not None:
            self._model.dequeue(call)
            self._model.enqueue_in_session(call, record)
        self.advance(record, now)
        if keeper is not None:
            self.feed(keeper, now)
            self.reserve(now)

    def _keeper(self, call: CallRecord | None) -> WorkerRecord | None:
        """Return the worker that is kept free for the call, if one is."""
        if call is None or not call.is_alone:
            return None
        return next((worker for worker in self._model.workers.values() if worker.exclusive is call), None)
