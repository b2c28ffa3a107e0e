"""PoolState: who gets which call, which worker starts, stops or dies. PURE decisions: no clock, no I/O, no thread.

Events are methods; each takes `now` (seconds on one monotonic clock) and returns instructions for `Pool` to carry out,
in order. `due` says when `tick` wants to be called next. `validate` checks every invariant; the tests call it after
each step of random histories.

Queues. A call that no worker can take stands in the pool's queue, in its pinned worker's queue, or, behind another call
of its own session, in that session's line. Free slots go to the oldest call that the worker may run. Invariant: while
the pool's queue holds a call, no ready worker has room for it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import inf
from random import Random

from .instructions import Cancel, Emit, Fail, Forget, Instruction, Kill, Send, Start, Stop, Why
from .pins import SessionRecord
from .poison import Poison
from .restarts import Restarts
from .roster import WorkerPhase, WorkerRecord
from .tickets import Phase, Ticket

NEVER = inf
JITTER = 0.1  # of recycle_after_age, so that workers started together do not all leave together


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that decide (DESIGN §5); durations in seconds, sizes in bytes, None for no limit."""

    size: int = 4
    concurrency: int = 8
    affinity: str = "strict_queue"
    queue_limit: int = 1000
    cancel_grace: float = 1.0
    stop_grace: float = 10.0
    startup_timeout: float = 60.0
    recycle_after_calls: int | None = None
    recycle_after_age: float | None = 3600.0
    recycle_after_memory: int | None = None
    session_ttl: float = 3600.0
    session_limit: int = 10_000
    session_drain: float = 900.0
    restart_budget: tuple[int, float] = (5, 30.0)


class PoolState:
    """The state of one pool. Not thread-safe: the pool's lock guards it."""

    def __init__(self, rules: Rules, *, random: Random | None = None) -> None:
        self.rules = rules
        self.size = rules.size
        self.workers: dict[int, WorkerRecord] = {}
        self.sessions: OrderedDict[str, SessionRecord] = OrderedDict()  # least recently used first
        self.queue: OrderedDict[int, Ticket] = OrderedDict()
        self.suspects: deque[Ticket] = deque()  # tickets that must run alone
        self.queued = 0  # all that stand anywhere
        self.due = NEVER
        self.is_closed = False
        self.is_started = False
        self.poison = Poison()
        self.restarts = Restarts(*rules.restart_budget)
        self._random = random or Random()
        self._order = 0
        self._generations = 0
        self._recycling: int | None = None  # one planned replacement at a time
        self._wanted: OrderedDict[int, str] = OrderedDict()  # generations to recycle, and why
        self._out: list[Instruction] = []
        self._pace = 0.0  # seconds between ends of calls, smoothed
        self._last_end: float | None = None
        self._next_sweep = NEVER

    # -- calls ---------------------------------------------------------------------------------------------------

    def submit(self, ticket: Ticket, now: float) -> list[Instruction]:
        """Take a new call: send it, queue it, or refuse it."""
        refusal = self._refusal(ticket, now)
        if refusal is not None:
            ticket.phase = Phase.DONE
            return [refusal, *self._flush()]
        self._order += 1
        ticket.order = self._order
        if ticket.session is None:
            self._place(ticket, None, now)
        else:
            self._submit_in_session(ticket, self.sessions[ticket.session], now)
        return self._flush()

    def finished(
        self, ticket: Ticket, now: float, *, held: bool | None = None, retire: str | None = None
    ) -> list[Instruction]:
        """Its worker answered: free the slot and use it. `held` is what the reply says of the session's state."""
        worker = self.workers.get(ticket.generation)
        if worker is None or ticket.id not in worker.running:
            return self._flush()
        is_abandoned = ticket.phase is Phase.ABANDONED
        self._leave_worker(ticket, worker)
        worker.answered += 1
        self._count_end(now)
        if worker.answered >= self.restarts.FRUITFUL:
            self.restarts.worked()
        session = self.sessions.get(ticket.session) if ticket.session else None
        if session is not None and held is not None and not session.lost:
            session.is_stateful = held
        self._after_end(ticket, worker, session, now)
        if retire is not None and worker.phase in (WorkerPhase.READY, WorkerPhase.DRAINING):
            self._retire(worker, retire, now)
        elif is_abandoned:
            self._kill_if_done(worker)
        self._recycle_if_worn(worker, now)
        return self._flush()

    def abandon(self, ticket: Ticket, now: float) -> list[Instruction]:
        """Nobody waits for it any more: drop it if it was not sent, else cancel it (K0, K1)."""
        if ticket.phase in (Phase.QUEUED, Phase.WAITING):
            self._drop(ticket, now)
        elif ticket.phase is Phase.RUNNING:
            ticket.phase = Phase.ABANDONED
            worker = self.workers[ticket.generation]
            worker.cancels[ticket.id] = now
            if worker.is_silent_since is None:
                worker.is_silent_since = now
            self._out.append(Cancel(worker.generation, ticket.id))
            self._wake(now + self.rules.cancel_grace)
            self._kill_if_done(worker)
        return self._flush()

    def retry_after(self) -> float:
        """An estimate in seconds of when a place in the queue is free, from the recent pace."""
        over = max(1, self.queued - self.rules.queue_limit + 1)
        return min(60.0, max(0.01, over * self._pace)) if self._pace else 1.0

    # -- workers -------------------------------------------------------------------------------------------------

    def start(self, now: float) -> list[Instruction]:
        """Begin: start workers up to the pool's size."""
        self.is_started = True
        self._reconcile(now)
        return self._flush()

    def worker_ready(self, generation: int, now: float) -> list[Instruction]:
        """A worker has set itself up: give it work."""
        worker = self.workers.get(generation)
        if worker is None or worker.phase is not WorkerPhase.STARTING:
            return self._flush()
        worker.phase = WorkerPhase.READY
        if self.rules.recycle_after_age is not None:
            age = self.rules.recycle_after_age * self._random.uniform(1 - JITTER, 1 + JITTER)
            worker.recycle_at = now + age
            self._wake(worker.recycle_at)
        self._out.append(Emit("worker.ready", self._facts(worker, seconds=now - worker.started_at)))
        self._begin_drain_if_spared(now)
        self._feed(worker, now)
        return self._flush()

    def died(
        self,
        generation: int,
        now: float,
        *,
        by_itself: bool = True,
        unstarted: Collection[int] = (),
        cause: str = "died",
    ) -> list[Instruction]:
        """A worker is gone. `unstarted` are the calls that provably cannot have begun (C8)."""
        worker = self.workers.pop(generation, None)
        if worker is None:
            return self._flush()
        was_starting = worker.phase is WorkerPhase.STARTING
        if worker.kill_reason:
            by_itself = False
        is_planned = bool(worker.leave_reason or worker.kill_reason) and not was_starting
        struck = self._strike(worker, now, by_itself=by_itself)
        self._note_death(worker, now, is_planned=is_planned, is_excused=struck)
        self._end_calls(worker, now, unstarted, cause)
        self._lose_sessions(worker, worker.leave_reason or ("killed" if worker.kill_reason else cause), now)
        self._requeue_pinned(worker, now)
        if self._recycling == generation:
            self._recycling = None
        self._wanted.pop(generation, None)
        self._reconcile(now)
        self._fail_queue_if_hopeless(now, was_starting=was_starting)
        self._feed_all(now)
        return self._flush()

    def pong(self, generation: int) -> None:
        """The worker gave a sign of life."""
        worker = self.workers.get(generation)
        if worker is not None:
            worker.is_silent_since = None

    def measured(self, generation: int, rss: int, now: float) -> list[Instruction]:
        """The worker and its children use `rss` bytes."""
        worker = self.workers.get(generation)
        if worker is not None:
            worker.rss = rss
            self._recycle_if_worn(worker, now)
        return self._flush()

    # -- the operator --------------------------------------------------------------------------------------------

    def resize(self, size: int, now: float) -> list[Instruction]:
        """Aim at `size` workers; those too many drain."""
        self.size = size
        self._reconcile(now)
        return self._flush()

    def recycle(
        self, now: float, reason: str = "recycled", generations: Iterable[int] | None = None
    ) -> list[Instruction]:
        """Replace workers (all, or the given ones), one at a time, each successor ready before its turn to drain."""
        for generation in sorted(self.workers if generations is None else generations):
            if generation in self.workers and self.workers[generation].is_staying:
                self._wanted[generation] = reason
        self._next_recycle(now)
        return self._flush()

    def close(self, now: float) -> list[Instruction]:
        """Take no more calls; end those that were not sent."""
        self.is_closed = True
        for ticket in self._all_queued():
            self._unqueue(ticket)
            self._fail(ticket, Why.CLOSED)
        return self._flush()

    def stop_workers(self, now: float) -> list[Instruction]:
        """Ask every worker to exit; running calls have had their time."""
        for worker in self.workers.values():
            if worker.phase is not WorkerPhase.STOPPING:
                self._stop(worker, "stopped", now)
        return self._flush()

    # -- sessions ------------------------------------------------------------------------------------------------

    def open_session(
        self, key: str, now: float, *, is_durable: bool = False, fresh: bool = False
    ) -> list[Instruction]:
        """Make the session known; `fresh` forgets what it was. Gives a Fail-less list, or raises KeyError at the limit."""
        record = self.sessions.get(key)
        if record is not None and fresh:
            self._forget(record)
            record = None
        if record is None:
            if not self._make_room(now):
                raise KeyError(key)
            record = self.sessions[key] = SessionRecord(key, now, is_durable=is_durable)
            self._schedule_sweep(now)
        record.is_durable = record.is_durable or is_durable
        return self._flush()

    def close_session(self, key: str, now: float) -> list[Instruction]:
        """Forget the session once nothing of it runs."""
        record = self.sessions.get(key)
        if record is not None:
            record.last_used = -inf
            if record.is_idle:
                self._forget(record)
            else:
                self._wake(now + 0.1)
        return self._flush()

    # -- time ----------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Instruction]:
        """Do what is due: graces that ran out, recycling by age, sessions that expired, starts after a back-off."""
        self.due = NEVER
        for worker in tuple(self.workers.values()):
            self._check_worker(worker, now)
        if now >= self._next_sweep:
            self._sweep_sessions(now)
        self._wake(self._next_sweep)
        self._next_recycle(now)
        self._reconcile(now)
        self.poison.forget_old(now)
        return self._flush()

    # ============================================================================================================
    # placing calls

    def _refusal(self, ticket: Ticket, now: float) -> Fail | None:
        if self.is_closed:
            return Fail(ticket, Why.CLOSED)
        if self.restarts.is_degraded and not self._has_worker(WorkerPhase.READY, WorkerPhase.DRAINING):
            return Fail(ticket, Why.UNHEALTHY, {"retry_in": self.restarts.wait(now)})
        verdict = self.poison.verdict(ticket, now)
        if verdict is not None:
            return Fail(ticket, Why.POISON, verdict)
        if self.queued >= self.rules.queue_limit and not self._has_room():
            return Fail(ticket, Why.SATURATED, {"queued": self.queued, "retry_after": self.retry_after()})
        return None if ticket.session is None else self._session_refusal(ticket, now)

    def _session_refusal(self, ticket: Ticket, now: float) -> Fail | None:
        key = ticket.session or ""
        session = self.sessions.get(key)
        if session is None:
            if not self._make_room(now):
                return Fail(ticket, Why.SESSION_LIMIT)
            session = self.sessions[key] = SessionRecord(key, now)
            self._schedule_sweep(now)
        if session.lost:
            reason, generation = session.lost
            return Fail(ticket, Why.SESSION_LOST, {"reason": reason, "generation": generation})
        if self.rules.affinity == "strict_fail_fast" and session.is_bound and not ticket.is_nested:
            worker = self.workers.get(session.pin or 0)
            if worker is not None and not (session.admits(ticket) and self._has_room_for(worker, session)):
                return Fail(ticket, Why.SESSION_BUSY)
        return None

    def _submit_in_session(self, ticket: Ticket, session: SessionRecord, now: float) -> None:
        self.sessions.move_to_end(session.key)
        session.last_used = now
        if ticket.is_nested or (not session.waiting and session.admits(ticket)):
            self._place(ticket, session, now)
        else:
            ticket.phase = Phase.WAITING
            session.waiting.append(ticket)
            self.queued += 1

    def _place(self, ticket: Ticket, session: SessionRecord | None, now: float) -> None:
        """Send the ticket to the worker that suits it best, or queue it."""
        if ticket.is_alone:
            self._enqueue(ticket, session, self.suspects)
            self._reserve_for_suspect(now)
            return
        pinned = self.workers.get(session.pin) if session is not None and session.pin is not None else None
        if pinned is not None and ticket.is_nested and pinned.phase is not WorkerPhase.STOPPING:
            self._send(ticket, pinned, session, now)
            return
        if pinned is not None and session is not None and self._has_room_for(pinned, session):
            self._send(ticket, pinned, session, now)
            return
        if pinned is not None and session is not None and session.is_bound and self.rules.affinity != "hint":
            self._enqueue(ticket, session, pinned.queue)
            return
        worker = self._best_worker()
        if worker is None:
            self._enqueue(ticket, session, self.queue)
        else:
            self._send(ticket, worker, session, now)

    def _enqueue(
        self,
        ticket: Ticket,
        session: SessionRecord | None,
        queue: OrderedDict[int, Ticket] | deque[Ticket],
        *,
        first: bool = False,
    ) -> None:
        ticket.phase = Phase.QUEUED
        self.queued += 1
        if session is not None:
            session.queued += 1
        if isinstance(queue, deque):
            queue.append(ticket)
            return
        queue[ticket.id] = ticket
        if first:
            queue.move_to_end(ticket.id, last=False)

    def _best_worker(self) -> WorkerRecord | None:
        """The ready worker with room that has the fewest calls, then the fewest sessions (S2)."""
        best: WorkerRecord | None = None
        for worker in self.workers.values():
            if worker.phase is not WorkerPhase.READY or worker.exclusive is not None:
                continue
            if worker.load >= self.rules.concurrency:
                continue
            if best is None or (worker.load, len(worker.sessions)) < (best.load, len(best.sessions)):
                best = worker
        return best

    def _has_room(self) -> bool:
        return self._best_worker() is not None

    def _has_room_for(self, worker: WorkerRecord, session: SessionRecord) -> bool:
        is_open = worker.phase is WorkerPhase.READY or (worker.phase is WorkerPhase.DRAINING and session.is_bound)
        return is_open and worker.exclusive is None and worker.load < self.rules.concurrency and not worker.queue

    def _send(self, ticket: Ticket, worker: WorkerRecord, session: SessionRecord | None, now: float) -> None:
        ticket.phase = Phase.RUNNING
        ticket.generation = worker.generation
        worker.running[ticket.id] = ticket
        if not ticket.is_nested:
            worker.load += 1
        restore = None if session is None else self._pin(ticket, worker, session)
        self._out.append(Send(ticket, worker.generation, restore))
        if session is not None and session.waiting:
            self._advance(session, now)

    def _pin(self, ticket: Ticket, worker: WorkerRecord, session: SessionRecord) -> str | None:
        """Bind the session to the worker at its first dispatch (S2); give its key if its state must go first."""
        if session.pin != worker.generation:
            if session.pin is not None:
                self._unpin(session)
                self._out.append(Emit("session.moved", {"session": session.key, "generation": worker.generation}))
            session.pin = worker.generation
            worker.sessions.add(session.key)
        session.running[ticket.id] = ticket
        session.writing += ticket.use == "write"
        must_restore, session.must_restore = session.must_restore, False
        return session.key if must_restore else None

    def _unpin(self, session: SessionRecord) -> None:
        worker = self.workers.get(session.pin or 0)
        if worker is not None:
            worker.sessions.discard(session.key)
        session.pin = None

    # -- feeding workers that have room --

    def _feed(self, worker: WorkerRecord, now: float) -> None:
        while (ticket := self._next_for(worker)) is not None:
            self._unqueue(ticket)
            self._send(ticket, worker, self.sessions.get(ticket.session or ""), now)

    def _feed_all(self, now: float) -> None:
        for worker in sorted(self.workers.values(), key=lambda worker: worker.load):
            self._feed(worker, now)

    def _next_for(self, worker: WorkerRecord) -> Ticket | None:
        """The oldest queued call that the worker may start now."""
        if worker.phase not in (WorkerPhase.READY, WorkerPhase.DRAINING) or worker.load >= self.rules.concurrency:
            return None
        if worker.exclusive is not None:
            return worker.exclusive if not worker.running and worker.exclusive.phase is Phase.QUEUED else None
        pinned = next(iter(worker.queue.values()), None)
        if worker.phase is WorkerPhase.DRAINING:
            return pinned
        shared = next(iter(self.queue.values()), None)
        if pinned is None or (shared is not None and shared.order < pinned.order):
            return shared
        return pinned

    def _reserve_for_suspect(self, now: float) -> None:
        """Keep the least busy worker free for the next suspect: one worker at a time."""
        if not self.suspects or any(worker.exclusive is not None for worker in self.workers.values()):
            return
        ready = [worker for worker in self.workers.values() if worker.phase is WorkerPhase.READY]
        if not ready:
            return
        ticket = self.suspects[0]
        session = self.sessions.get(ticket.session or "")
        worker = min(ready, key=lambda worker: worker.load)
        if session is not None and session.is_bound and session.pin in self.workers:
            worker = self.workers[session.pin]
        worker.exclusive = ticket
        self._feed(worker, now)

    def _advance(self, session: SessionRecord, now: float) -> None:
        """Let the session's next calls go, as far as order and writers allow."""
        while session.waiting and session.admits(session.waiting[0]):
            ticket = session.waiting.popleft()
            self.queued -= 1
            self._place(ticket, session, now)

    # ============================================================================================================
    # ends of calls

    def _leave_worker(self, ticket: Ticket, worker: WorkerRecord) -> None:
        del worker.running[ticket.id]
        worker.cancels.pop(ticket.id, None)
        if not ticket.is_nested:
            worker.load -= 1
        if worker.exclusive is ticket:
            worker.exclusive = None
        ticket.phase = Phase.DONE

    def _after_end(self, ticket: Ticket, worker: WorkerRecord, session: SessionRecord | None, now: float) -> None:
        if session is not None:
            self._leave_session(ticket, session, now)
        if ticket.is_alone:
            self.poison.acquit(ticket)
            self._reserve_for_suspect(now)
        if self.queue or worker.queue or worker.exclusive is not None:
            self._feed(worker, now)
        if worker.phase is WorkerPhase.DRAINING:
            self._stop_if_drained(worker, now)

    def _leave_session(self, ticket: Ticket, session: SessionRecord, now: float) -> None:
        if session.running.pop(ticket.id, None) is not None:
            session.writing -= ticket.use == "write"
        session.last_used = max(session.last_used, now) if session.last_used != -inf else -inf
        if session.waiting:
            self._advance(session, now)
        if session.last_used == -inf and session.is_idle:
            self._forget(session)

    def _drop(self, ticket: Ticket, now: float) -> None:
        """Take an unsent call out, and let those behind it go."""
        self._unqueue(ticket)
        ticket.phase = Phase.DONE
        session = self.sessions.get(ticket.session or "")
        if session is not None:
            self._leave_session(ticket, session, now)
        if ticket.is_alone:
            self._free_exclusive(ticket, now)

    def _free_exclusive(self, ticket: Ticket, now: float) -> None:
        for worker in self.workers.values():
            if worker.exclusive is ticket:
                worker.exclusive = None
                self._feed(worker, now)
        self._reserve_for_suspect(now)

    def _unqueue(self, ticket: Ticket) -> None:
        """Take the ticket out of wherever it stands."""
        self.queued -= 1
        session = self.sessions.get(ticket.session or "")
        if ticket.phase is Phase.WAITING:
            if session is not None:
                session.waiting.remove(ticket)
            return
        if session is not None:
            session.queued -= 1
        if ticket.is_alone:
            self.suspects.remove(ticket)
        elif self.queue.pop(ticket.id, None) is None and session is not None and session.pin is not None:
            worker = self.workers.get(session.pin)
            if worker is not None:
                worker.queue.pop(ticket.id, None)

    def _fail(self, ticket: Ticket, why: Why, **facts: object) -> None:
        ticket.phase = Phase.DONE
        self._out.append(Fail(ticket, why, facts))

    def _all_queued(self) -> list[Ticket]:
        tickets = [*self.queue.values(), *self.suspects]
        for worker in self.workers.values():
            tickets += worker.queue.values()
        for session in self.sessions.values():
            tickets += session.waiting
        return sorted(tickets, key=lambda ticket: ticket.order)

    def _count_end(self, now: float) -> None:
        if self._last_end is not None:
            gap = now - self._last_end
            self._pace = gap if not self._pace else 0.95 * self._pace + 0.05 * gap
        self._last_end = now

    # ============================================================================================================
    # deaths

    def _strike(self, worker: WorkerRecord, now: float, *, by_itself: bool) -> bool:
        """Record who may be to blame (C7b); True if the death counts against a call and not against the worker."""
        if not by_itself or not worker.running:
            return False
        calls = list(worker.running.values())
        if len(calls) == 1:
            self.poison.strike(calls[0], now)
            return self.poison.has_struck_twice(calls[0])
        for ticket in calls:
            self.poison.suspect(ticket, now)
        return False

    def _note_death(self, worker: WorkerRecord, now: float, *, is_planned: bool, is_excused: bool) -> None:
        facts = self._facts(
            worker, reason=worker.kill_reason or worker.leave_reason or "died", calls=len(worker.running)
        )
        self._out.append(Emit("worker.stopped" if is_planned else "worker.died", facts))
        if is_planned or is_excused or worker.answered >= self.restarts.FRUITFUL:
            return
        was_degraded = self.restarts.is_degraded
        self.restarts.fruitless(now, self._random.uniform(0.5, 1.0))
        if self.restarts.is_degraded and not was_degraded:
            self._out.append(Emit("pool.degraded", {"reason": "restart_budget", "deaths": self.restarts.recent}))

    def _end_calls(self, worker: WorkerRecord, now: float, unstarted: Collection[int], cause: str) -> None:
        calls, worker.running = sorted(worker.running.values(), key=lambda t: t.order, reverse=True), {}
        for ticket in calls:
            session = self.sessions.get(ticket.session or "")
            if session is not None and session.running.pop(ticket.id, None) is not None:
                session.writing -= ticket.use == "write"
            if ticket.phase is Phase.ABANDONED:
                ticket.phase = Phase.DONE
            else:
                self._end_call(ticket, session, worker, is_unstarted=ticket.id in unstarted, cause=cause)

    def _end_call(
        self, ticket: Ticket, session: SessionRecord | None, worker: WorkerRecord, *, is_unstarted: bool, cause: str
    ) -> None:
        is_lost = session is not None and session.is_stateful and not session.is_durable
        if ticket.is_nested or self.is_closed:
            self._fail(ticket, Why.DIED, started="no" if is_unstarted else "unknown")
        elif is_unstarted and is_lost:
            self._fail(ticket, Why.SESSION_LOST, reason=cause, generation=worker.generation)
        elif is_unstarted or (ticket.retries > 0 and not is_lost):
            ticket.retries -= 0 if is_unstarted else 1
            ticket.is_alone = ticket.is_alone or self.poison.is_suspect(ticket)
            queue = self.suspects if ticket.is_alone else self.queue
            self._enqueue(ticket, session, queue, first=True)
            self._out.append(Emit("call.redispatched", {"call": ticket.id, "started": not is_unstarted}))
        else:
            self._fail(ticket, Why.DIED, started="no" if is_unstarted else "unknown")

    def _lose_sessions(self, worker: WorkerRecord, reason: str, now: float) -> None:
        keys, worker.sessions = sorted(worker.sessions), set()
        for key in keys:
            session = self.sessions[key]
            session.pin = None
            if session.is_stateful and session.is_durable:
                session.must_restore = True
            elif session.is_stateful:
                self._lose(session, reason, worker, now)

    def _lose(self, session: SessionRecord, reason: str, worker: WorkerRecord, now: float) -> None:
        """Its state is gone: say so to every call of it, now and later (S6)."""
        session.lost = (reason, worker.generation)
        session.is_stateful = False
        self._out.append(
            Emit("session.lost", {"session": session.key, "reason": reason, "generation": worker.generation})
        )
        behind = [ticket for ticket in worker.queue.values() if ticket.session == session.key]
        for ticket in [*behind, *session.waiting]:
            if ticket.phase is Phase.QUEUED:
                del worker.queue[ticket.id]
                session.queued -= 1
            self.queued -= 1
            self._fail(ticket, Why.SESSION_LOST, reason=reason, generation=worker.generation)
        session.waiting.clear()

    def _requeue_pinned(self, worker: WorkerRecord, now: float) -> None:
        """Calls that waited for the dead worker go on to any other (their sessions lost nothing, or can be restored)."""
        tickets, worker.queue = list(worker.queue.values()), OrderedDict()
        for ticket in tickets:
            session = self.sessions.get(ticket.session or "")
            self.queued -= 1
            if session is not None:
                session.queued -= 1
            self._place(ticket, session, now)
        for session in [s for s in self.sessions.values() if s.waiting] if tickets or self.queued else []:
            self._advance(session, now)
        if worker.exclusive is not None:
            self._reserve_for_suspect(now)

    def _fail_queue_if_hopeless(self, now: float, *, was_starting: bool) -> None:
        """With no worker ready or starting, callers learn at once why nobody will serve them."""
        if self.is_closed or self.workers and self._has_worker(*WorkerPhase):
            return
        if not (was_starting or self.restarts.is_degraded):
            return
        why = Why.UNHEALTHY if self.restarts.is_degraded else Why.BOOT
        for ticket in self._all_queued():
            self._unqueue(ticket)
            self._fail(ticket, why, retry_in=self.restarts.wait(now))

    def _has_worker(self, *phases: WorkerPhase) -> bool:
        return any(worker.phase in phases for worker in self.workers.values())

    # ============================================================================================================
    # starting, recycling, stopping

    def _reconcile(self, now: float) -> None:
        """Start or drain workers until as many stay as are wanted."""
        if self.is_closed or not self.is_started:
            return
        staying = [worker for worker in self.workers.values() if worker.is_staying]
        target = self.size + (self._recycling is not None)
        for _ in range(target - len(staying)):
            if now < self.restarts.not_before:
                self._wake(self.restarts.not_before)
                return
            self._start(now)
        if len(staying) > target:
            spare = sorted(
                staying, key=lambda w: (w.phase is not WorkerPhase.STARTING, len(w.sessions), w.generation)
            )
            for worker in spare[: len(staying) - target]:
                self._drain(worker, "resized", now)

    def _start(self, now: float) -> None:
        self._generations += 1
        taken = {w.slot for w in self.workers.values() if w.is_staying and w.generation != self._recycling}
        slot = min(set(range(len(taken) + 1)) - taken)
        worker = WorkerRecord(self._generations, slot, now)
        self.workers[worker.generation] = worker
        self._out.append(Start(worker.generation, slot))
        self._wake(now + self.rules.startup_timeout)

    def _recycle_if_worn(self, worker: WorkerRecord, now: float) -> None:
        if worker.phase is not WorkerPhase.READY or worker.generation in self._wanted:
            return
        calls, memory = self.rules.recycle_after_calls, self.rules.recycle_after_memory
        reason = None
        if calls is not None and worker.answered >= calls:
            reason = "calls"
        elif memory is not None and worker.rss >= memory:
            reason = "memory"
        elif worker.recycle_at is not None and now >= worker.recycle_at:
            reason = "age"
        if reason is not None:
            self._wanted[worker.generation] = reason
            self._next_recycle(now)

    def _next_recycle(self, now: float) -> None:
        """Begin the next planned replacement, if none is under way: its spare starts first."""
        while self._recycling is None and self._wanted and not self.is_closed:
            generation = next(iter(self._wanted))
            worker = self.workers.get(generation)
            if worker is None or not worker.is_staying:
                del self._wanted[generation]
                continue
            self._recycling = generation
            worker.leave_reason = "recycled"
            self._out.append(Emit("worker.recycling", self._facts(worker, reason=self._wanted[generation])))
            self._reconcile(now)

    def _begin_drain_if_spared(self, now: float) -> None:
        worker = self.workers.get(self._recycling or 0)
        if worker is None or worker.phase is not WorkerPhase.READY:
            return
        ready = sum(w.phase is WorkerPhase.READY for w in self.workers.values())
        if ready > self.size or ready == len(self.workers):
            self._drain(worker, "recycled", now)

    def _drain(self, worker: WorkerRecord, reason: str, now: float) -> None:
        """No new calls but those of stateful sessions that live there; it stops when they have ended (S8)."""
        worker.leave_reason = reason
        if worker.phase is WorkerPhase.STARTING:
            self._kill(worker, reason)
            return
        worker.phase = WorkerPhase.DRAINING
        worker.drain_until = now + self.rules.session_drain
        self._wake(worker.drain_until)
        self._move_light_calls(worker, now)
        self._stop_if_drained(worker, now)

    def _move_light_calls(self, worker: WorkerRecord, now: float) -> None:
        """Queued calls of sessions without state here may go elsewhere."""
        for ticket in list(worker.queue.values()):
            session = self.sessions.get(ticket.session or "")
            if session is None or not session.is_bound:
                self._unqueue(ticket)
                if session is not None and session.pin == worker.generation and not session.running:
                    self._unpin(session)
                self._place(ticket, session, now)

    def _stop_if_drained(self, worker: WorkerRecord, now: float) -> None:
        self._release_idle_sessions(worker)
        if not worker.running and not worker.queue and not worker.sessions:
            self._stop(worker, worker.leave_reason, now)

    def _release_idle_sessions(self, worker: WorkerRecord) -> None:
        """Idle sessions without state, or whose state the supervisor has too, need this worker no longer."""
        for key in sorted(worker.sessions):
            session = self.sessions[key]
            if session.running or session.queued or (session.is_stateful and not session.is_durable):
                continue
            if session.is_stateful:
                session.must_restore = True
            self._unpin(session)

    def _stop(self, worker: WorkerRecord, reason: str, now: float) -> None:
        worker.leave_reason = worker.leave_reason or reason
        self._lose_sessions(worker, worker.leave_reason, now)
        worker.phase = WorkerPhase.STOPPING
        worker.stop_by = now + self.rules.stop_grace
        self._wake(worker.stop_by)
        self._out.append(Stop(worker.generation, worker.leave_reason))
        self._requeue_pinned(worker, now)

    def _kill(self, worker: WorkerRecord, reason: str) -> None:
        if not worker.kill_reason:
            worker.kill_reason = reason
            worker.phase = WorkerPhase.STOPPING
            self._out.append(Kill(worker.generation, reason))

    # ============================================================================================================
    # calls that will not end (K2 - K5)

    def _retire(self, worker: WorkerRecord, reason: str, now: float) -> None:
        """No new calls; a spare starts now; its other calls run on, then it is killed."""
        worker.phase = WorkerPhase.RETIRING
        worker.leave_reason = reason
        self._out.append(Emit("worker.retiring", self._facts(worker, reason=reason)))
        worker.exclusive = None
        self._lose_sessions(worker, reason, now)
        self._requeue_pinned(worker, now)
        if self._recycling == worker.generation:
            self._recycling = None
        retiring = [w for w in self.workers.values() if w.phase is WorkerPhase.RETIRING]
        if len(retiring) > self.size:
            self._kill(retiring[0], "too_many_retiring")
        self._kill_if_done(worker)
        self._reconcile(now)
        self._reserve_for_suspect(now)

    def _kill_if_done(self, worker: WorkerRecord) -> None:
        if worker.phase is WorkerPhase.RETIRING and worker.live_calls == 0:
            self._kill(worker, worker.leave_reason)

    def _check_worker(self, worker: WorkerRecord, now: float) -> None:
        if worker.phase is WorkerPhase.STARTING:
            self._check_start(worker, now)
        elif worker.phase is WorkerPhase.STOPPING:
            self._check_stop(worker, now)
        else:
            self._check_cancels(worker, now)
            self._check_drain(worker, now)
            self._recycle_if_worn(worker, now)
            if worker.recycle_at is not None and worker.generation not in self._wanted:
                self._wake(worker.recycle_at)

    def _check_start(self, worker: WorkerRecord, now: float) -> None:
        limit = worker.started_at + self.rules.startup_timeout
        if now >= limit:
            self._kill(worker, "startup_timeout")
        else:
            self._wake(limit)

    def _check_stop(self, worker: WorkerRecord, now: float) -> None:
        if worker.stop_by is None or worker.kill_reason:
            return
        if now >= worker.stop_by:
            self._kill(worker, "stop_grace")
        else:
            self._wake(worker.stop_by)

    def _check_cancels(self, worker: WorkerRecord, now: float) -> None:
        if not worker.cancels:
            return
        culprit, since = min(worker.cancels.items(), key=lambda item: item[1])
        limit = since + self.rules.cancel_grace
        if now < limit:
            self._wake(limit)
        elif self.rules.concurrency == 1 or worker.live_calls == 0:
            self._kill(worker, "cancel_grace")
        elif worker.is_silent_since is not None and now >= worker.is_silent_since + self.rules.cancel_grace:
            self._kill(worker, f"unresponsive:{culprit}")
        elif worker.phase is not WorkerPhase.RETIRING:
            self._retire(worker, "cancel_grace", now)
        elif worker.is_silent_since is not None:
            self._wake(worker.is_silent_since + self.rules.cancel_grace)

    def _check_drain(self, worker: WorkerRecord, now: float) -> None:
        if worker.phase is not WorkerPhase.DRAINING or worker.drain_until is None:
            return
        if now >= worker.drain_until:
            self._stop(worker, worker.leave_reason, now)
        else:
            self._wake(worker.drain_until)
            self._stop_if_drained(worker, now)

    # ============================================================================================================
    # sessions that end

    def _forget(self, session: SessionRecord) -> None:
        if session.is_stateful and session.pin in self.workers:
            self._out.append(Forget(session.pin or 0, session.key))
        pin = session.pin
        self._unpin(session)
        del self.sessions[session.key]
        worker = self.workers.get(pin or 0)
        if worker is not None and worker.phase is WorkerPhase.DRAINING:
            self._wake(-inf)

    def _make_room(self, now: float) -> bool:
        """Whether one more session can be kept; the least recently used one without state may have to go (S7)."""
        if len(self.sessions) < self.rules.session_limit:
            return True
        for session in self.sessions.values():
            if session.is_idle and not session.is_stateful:
                self._forget(session)
                return True
        return False

    def _schedule_sweep(self, now: float) -> None:
        if self._next_sweep == NEVER:
            self._next_sweep = now + self.rules.session_ttl / 10
            self._wake(self._next_sweep)

    def _sweep_sessions(self, now: float) -> None:
        oldest = now - self.rules.session_ttl
        for session in [s for s in self.sessions.values() if s.is_idle and s.last_used <= oldest]:
            if session.is_stateful and session.last_used != -inf:
                self._out.append(Emit("session.expired", {"session": session.key}))
            self._forget(session)
        self._next_sweep = now + self.rules.session_ttl / 10 if self.sessions else NEVER

    # ============================================================================================================

    def _facts(self, worker: WorkerRecord, **more: object) -> dict[str, object]:
        return {"slot": worker.slot, "generation": worker.generation, **more}

    def _wake(self, when: float) -> None:
        self.due = min(self.due, when)

    def _flush(self) -> list[Instruction]:
        out, self._out = self._out, []
        return out

    def validate(self) -> None:
        """Check every invariant; for tests.

        Raises:
            AssertionError: one does not hold.
        """
        from .invariants import check

        check(self)
