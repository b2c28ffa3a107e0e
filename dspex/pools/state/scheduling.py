"""Placing: which worker gets which call, and which calls wait where. Pure.

A call that no worker can take now stands in the pool's queue, in its pinned worker's queue, among the suspects, or,
behind another call of its own session, in that session's line. Free slots go to the call whose turn it is among those
that the worker may run. A call gets its turn when it comes, or, if others of its session stand before it, when they are
gone: however many calls a session has, it takes turns with everybody else.
"""

from __future__ import annotations

from .affinity import Affinity
from .instructions import Send, Why
from .model import Board
from .pins import SessionRecord
from .poison import Poison
from .records import Phase, Ticket
from .roster import READY, WorkerPhase, WorkerRecord

RUNNING, DONE = Phase.RUNNING, Phase.DONE  # for hot paths, as READY


class Placing:
    """The calls of one pool on their way to its workers."""

    def __init__(self, board: Board, affinity: Affinity, poison: Poison) -> None:
        self._board = board
        self._affinity = affinity
        self._poison = poison

    # -- a call comes --

    def submit(self, ticket: Ticket, record: SessionRecord, now: float) -> None:
        """Send a session's new call, or let it stand where it belongs."""
        self._affinity.use(record, now)
        if record.pin is None:
            ticket.is_nested = False  # the call that it was made for is gone: it waits like any other
        if ticket.is_nested or (not record.waiting.tickets and record.admits(ticket)):
            self.place(ticket, now)
        else:
            self._board.wait(ticket, record)

    def can_start(self, ticket: Ticket, record: SessionRecord | None) -> bool:
        """Whether the new call would be sent at once."""
        if ticket.is_nested:
            return True
        if record is not None and (record.waiting or not record.admits(ticket)):
            return False
        if ticket.is_alone:
            return not self._board.suspects and any(not worker.running for worker in self._ready())
        return self._destination(record) is not None

    def place(self, ticket: Ticket, now: float) -> None:
        """Send the ticket to the worker that suits it best, or queue it."""
        record = ticket.record
        if not ticket.turn:
            self._board.turn = ticket.turn = self._board.turn + 1
        if ticket.is_nested:
            self._place_nested(ticket, record, now)
        elif ticket.is_alone:
            self._board.stand(ticket, self._board.suspects)
            self.reserve(now)
        elif (worker := self._destination(record)) is not None:
            self.send(ticket, worker)
        elif record is not None and record.pin in self._board.workers and self._board.binds(record):
            self._board.stand(ticket, self._board.workers[record.pin].queue)
        else:
            self._board.stand(ticket, self._board.queue)

    def send(self, ticket: Ticket, worker: WorkerRecord) -> None:
        """Give the ticket to the worker; whoever sent it lets its session advance afterwards."""
        ticket.phase = RUNNING
        ticket.generation = worker.generation
        worker.running[ticket.id] = ticket
        if not ticket.is_nested:
            worker.load += 1
        record, restore = ticket.record, None
        if record is not None:
            restore = self._affinity.pin(record, worker)
            record.running[ticket.id] = ticket
            record.writing += ticket.use == "write"
        self._board.out.append(Send(ticket, worker.generation, restore))

    def _destination(self, record: SessionRecord | None) -> WorkerRecord | None:
        """The worker that may start a call of the session (or of none) now."""
        if record is not None and record.pin is not None:
            pinned = self._board.workers[record.pin]
            must_stay = self._board.binds(record)
            is_others_turn = pinned.phase is READY and self._board.queue.tickets  # whoever frees a slot feeds it then
            if not is_others_turn and self.has_room_for(pinned, must_stay=must_stay):
                return pinned
            if must_stay:
                return None
        return None if self._board.queue.tickets else self._best_worker()

    def has_room_for(self, worker: WorkerRecord, *, must_stay: bool) -> bool:
        """Whether the worker can start a call that is pinned to it; one that leaves only takes those that must."""
        if worker.load >= worker.concurrency or worker.exclusive is not None or worker.queue.tickets:
            return False
        return worker.phase is WorkerPhase.READY or (must_stay and worker.is_serving)

    def has_room(self, record: SessionRecord | None) -> bool:
        """Whether a worker that may run the session's calls could take one now."""
        if record is not None and record.pin is not None and self._board.binds(record):
            return self.has_room_for(self._board.workers[record.pin], must_stay=True)
        return self._best_worker() is not None

    def _best_worker(self) -> WorkerRecord | None:
        """The ready worker with room that has the fewest calls, then the fewest sessions (S2)."""
        best: WorkerRecord | None = None
        for worker in self._board.workers.values():
            load = worker.load
            if load >= worker.concurrency or worker.phase is not READY or worker.exclusive is not None:
                continue
            if best is None or load < best.load or (load == best.load and len(worker.sessions) < len(best.sessions)):
                best = worker
        return best

    def _place_nested(self, ticket: Ticket, record: SessionRecord | None, now: float) -> None:
        """A tool of a running call waits for it: it runs beyond `concurrency`, or fails at once (C14)."""
        generation = ticket.generation if record is None else record.pin  # where the call runs whose tool asks
        pinned = self._board.workers.get(generation or 0)
        if pinned is not None and pinned.phase is not WorkerPhase.STOPPING:
            self.send(ticket, pinned)
        elif pinned is not None and record is not None and self._board.binds(record):
            self._board.fail(ticket, Why.DEADLOCK)
        elif ready := self._ready():
            self.send(ticket, min(ready, key=lambda worker: (worker.exclusive is not None, len(worker.running))))
        elif self._board.is_over:
            self._board.fail(ticket, Why.CLOSED)
        elif record is None and self._board.has_worker(WorkerPhase.STARTING):
            self._board.stand(ticket, self._board.queue)
        else:
            self._board.fail(ticket, Why.DEADLOCK)

    # -- a slot is free --

    def feed(self, worker: WorkerRecord, now: float) -> None:
        """Give the worker what it may start, in turn."""
        while (ticket := self._next_for(worker)) is not None:
            self._board.take(ticket)
            if not (self._poison.is_quiet or self._is_acceptable(ticket, worker, now)):
                continue
            self.send(ticket, worker)
            if ticket.record is not None:
                self.advance(ticket.record, now)

    def feed_all(self, now: float) -> None:
        for worker in sorted(self._board.workers.values(), key=lambda worker: worker.load):
            self.feed(worker, now)

    def advance(self, record: SessionRecord, now: float) -> None:
        """Let the session's next calls go, as far as order and writers allow."""
        while (ticket := record.waiting.first()) is not None and record.admits(ticket):
            self._board.take(ticket)
            self.place(ticket, now)

    def _next_for(self, worker: WorkerRecord) -> Ticket | None:
        """The queued call that the worker may start now, and whose turn is first."""
        if worker.load >= worker.concurrency or not worker.is_serving:
            return None
        if worker.exclusive is not None:
            is_free = not worker.running and worker.exclusive.phase is Phase.QUEUED
            return worker.exclusive if is_free else None
        pinned = worker.queue.first()
        if worker.phase is not WorkerPhase.READY:
            return pinned
        shared = self._board.queue.first()
        if pinned is None or (shared is not None and shared.turn < pinned.turn):
            return shared
        return pinned

    def _is_acceptable(self, ticket: Ticket, worker: WorkerRecord, now: float) -> bool:
        """Look again at a call that stood while others like it died: it may be refused, or have to run alone."""
        was_alone = ticket.is_alone
        refusal = self._poison.verdict(ticket, now)
        if refusal is None and ticket.is_alone == was_alone:
            return True
        if worker.exclusive is ticket:
            worker.exclusive = None
        if refusal is None:
            self._board.stand(ticket, self._board.suspects)
        else:
            self._board.fail(ticket, Why.POISON, **refusal)
            self.after_end(ticket, now)
        self.reserve(now)
        return False

    # -- suspects --

    def reserve(self, now: float) -> None:
        """Keep a worker free for the next suspect: one worker at a time."""
        if not self._board.suspects or any(w.exclusive is not None for w in self._board.workers.values()):
            return
        for ticket in self._board.suspects:
            worker = self._place_for_suspect(ticket)
            if worker is not None:
                worker.exclusive = ticket
                self.feed(worker, now)
                return

    def release(self, worker: WorkerRecord, now: float) -> None:
        """The worker is kept free no longer."""
        if worker.exclusive is not None:
            worker.exclusive = None
            self.feed(worker, now)
            self.reserve(now)

    def _place_for_suspect(self, ticket: Ticket) -> WorkerRecord | None:
        record = ticket.record
        if record is not None and record.pin in self._board.workers and self._board.binds(record):
            pinned = self._board.workers[record.pin]
            return pinned if pinned.is_serving else None
        return min(self._ready(), key=lambda worker: worker.load, default=None)

    def _ready(self) -> list[WorkerRecord]:
        return [worker for worker in self._board.workers.values() if worker.phase is WorkerPhase.READY]

    # -- a call ends --

    def leave_worker(self, ticket: Ticket, worker: WorkerRecord) -> None:
        """Free the slot of a call that ran."""
        del worker.running[ticket.id]
        if worker.cancels and worker.cancels.pop(ticket.id, None) is not None and not worker.cancels:
            worker.is_silent_since = None
        if not ticket.is_nested:
            worker.load -= 1
        if worker.exclusive is ticket:
            worker.exclusive = None
        ticket.phase = DONE

    def leave_session(self, ticket: Ticket, record: SessionRecord) -> None:
        """Take a call that ran out of its session."""
        if record.running.pop(ticket.id, None) is not None:
            record.writing -= ticket.use == "write"

    def drop(self, ticket: Ticket, now: float) -> None:
        """Take an unsent call out, and let those behind it go."""
        self._board.take(ticket)
        ticket.phase = Phase.DONE
        self.after_end(ticket, now)
        keeper = self._keeper(ticket)
        if keeper is not None:
            self.release(keeper, now)

    def after_end(self, ticket: Ticket, now: float) -> None:
        """Let the session of a call that ended go on."""
        record = ticket.record
        if record is not None:
            record.last_used = now
            self._affinity.ended(record)
            self.advance(record, now)

    def to_its_worker(self, record: SessionRecord) -> None:
        """The session got state on its worker while a call of it stood where any worker could take it: move it."""
        ticket = record.head
        if ticket is not None and ticket.line is self._board.queue and record.pin in self._board.workers:
            self._board.take(ticket)
            self._board.stand(ticket, self._board.workers[record.pin].queue)

    def redirect(self, record: SessionRecord, now: float) -> None:
        """Place the session's queued call again: its worker changed."""
        ticket = record.head
        keeper = self._keeper(ticket)
        if keeper is not None:
            keeper.exclusive = None
        if ticket is not None:
            self._board.take(ticket)
            self._board.wait(ticket, record)
        self.advance(record, now)
        if keeper is not None:
            self.feed(keeper, now)
            self.reserve(now)

    def _keeper(self, ticket: Ticket | None) -> WorkerRecord | None:
        """The worker that is kept free for the ticket, if one is."""
        if ticket is None or not ticket.is_alone:
            return None
        return next((worker for worker in self._board.workers.values() if worker.exclusive is ticket), None)
