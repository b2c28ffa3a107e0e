"""The data that the parts of `PoolState` share: rules, workers, sessions, queues, pending instructions.

Pure; the pool's lock guards it. It decides nothing: the parts of `machine` do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from random import Random

from .instructions import Emit, EndReason, Fail, Instruction
from .records import CallQueue, CallRecord, Phase, SessionRecord, WorkerPhase, WorkerRecord
from .turns import Turns

NEVER = inf


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that decisions use (DESIGN §5); durations in seconds, sizes in bytes, None for no limit."""

    size: int = 4
    concurrency: int = 8
    affinity: str = "strict_queue"
    queue_limit: int = 1000
    cancel_grace: float = 1.0
    stop_grace: float = 10.0
    teardown_timeout: float = 5.0
    startup_timeout: float = 60.0
    recycle_after_calls: int | None = None
    recycle_after_age: float | None = 3600.0
    recycle_after_memory: int | None = None
    session_ttl: float = 3600.0
    session_limit: int = 10_000
    session_drain: float = 900.0
    restart_budget: tuple[int, float] = (5, 30.0)


class PoolModel:
    """The state of one pool, without the decisions."""

    def __init__(self, rules: Rules, random: Random) -> None:
        self.rules = rules
        self.random = random
        self.size = rules.size
        self.workers: dict[int, WorkerRecord] = {}
        self.sessions: dict[str, SessionRecord] = {}
        self.queue = CallQueue()  # for any worker. invariant: while a call stands here, no ready worker has room for it
        self.suspects = CallQueue()  # calls that must run alone
        self.queued = 0  # all that stand anywhere
        self.queued_of: dict[str, int] = {}  # of these, those of each share that has any
        self.order = 0  # of the last submitted call
        self.turns = Turns()
        self.due = NEVER  # when `tick` wants to be called next
        self.is_closed = False  # no new calls
        self.is_over = False  # and those that were not sent have been ended: nobody needs a new worker
        self.is_started = False
        self.out: list[Instruction] = []

    # -- what is to be done --

    def tick_by(self, when: float) -> None:
        """Request a tick at `when` or before."""
        if when < self.due:
            self.due = when

    def emit(self, event: str, worker: WorkerRecord | None = None, **facts: object) -> None:
        if worker is not None:
            facts = {"slot": worker.slot, "generation": worker.generation, **facts}
        self.out.append(Emit(event, facts))

    def fail(self, call: CallRecord, why: EndReason, **facts: object) -> None:
        call.phase = Phase.DONE
        if call.is_alone:
            for worker in self.workers.values():
                if worker.exclusive is call:
                    worker.exclusive = None  # whoever let calls fail feeds the workers afterwards
        self.out.append(Fail(call, why, facts))

    def flush(self) -> list[Instruction]:
        """Return the instructions since the last time."""
        out, self.out = self.out, []
        return out

    # -- queues --

    def enqueue(self, call: CallRecord, queue: CallQueue) -> None:
        """Put the call into a queue, at its place."""
        call.phase = Phase.QUEUED
        call.place = call.turn
        call.queue = queue
        queue.push(call)
        self._count(call, 1)
        if call.record is not None:
            call.record.head = call

    def enqueue_in_session(self, call: CallRecord, record: SessionRecord) -> None:
        """Put the call into its session's queue, at its place."""
        call.phase = Phase.WAITING
        call.place = call.order
        call.queue = record.waiting
        record.waiting.push(call)
        self._count(call, 1)

    def dequeue(self, call: CallRecord) -> None:
        """Take the call out of the queue that it is in."""
        if call.queue is None:
            return
        call.queue.discard(call)
        call.queue = None
        self._count(call, -1)
        if call.record is not None and call.record.head is call:
            call.record.head = None

    def _count(self, call: CallRecord, more: int) -> None:
        self.queued += more
        count = self.queued_of.get(call.share, 0) + more
        if count:
            self.queued_of[call.share] = count
        else:
            self.queued_of.pop(call.share, None)

    def clear_counts(self) -> None:
        """Count anew: every queue has been emptied."""
        self.queued = 0
        self.queued_of.clear()

    def is_full_for(self, share: str) -> bool:
        """Whether the queue takes no more calls of the share: it is full, and the share has its part of it."""
        if self.queued < self.rules.queue_limit:
            return False
        others = len(self.queued_of) - (share in self.queued_of)
        return self.queued_of.get(share, 0) >= self.rules.queue_limit // (others + 1)

    def queued_calls(self) -> list[CallRecord]:
        """Return all queued calls, the oldest first."""
        calls = [*self.queue, *self.suspects]
        for worker in self.workers.values():
            calls += worker.queue
        for record in self.sessions.values():
            calls += record.waiting
        return sorted(calls, key=lambda call: call.order)

    # -- questions --

    def has_worker(self, *phases: WorkerPhase) -> bool:
        return any(worker.phase in phases for worker in self.workers.values())

    def staying(self) -> list[WorkerRecord]:
        """Return the workers that count towards the pool's size."""
        return [worker for worker in self.workers.values() if worker.is_staying]

    def pinned(self, worker: WorkerRecord) -> Iterator[SessionRecord]:
        """Return the sessions that are pinned to the worker, in a fixed order."""
        return iter([self.sessions[key] for key in sorted(worker.sessions)])

    def binds(self, record: SessionRecord) -> bool:
        """Return whether its calls may go to no other worker: its state is there, and the mode binds it (S5)."""
        return record.is_stateful and (record.is_durable or self.rules.affinity != "hint")
