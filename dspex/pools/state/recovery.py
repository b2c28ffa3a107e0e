"""Repair a `PoolState` after a signal handler raised in the middle of a change. Pure.

What was really sent decides: a call that its worker was sent runs there, every other live call is submitted again in
its old order, and not refused if it had been taken. All counts are made again. Instructions that may have been lost on
the way are given again; carrying them out twice does no harm. It may itself be interrupted, and then begins again from
the same facts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from math import inf

from .instructions import Cancel, Instruction, Kill, Send, Start, Stop
from .machine import PoolState
from .records import CallRecord, Phase, WorkerPhase, WorkerRecord


def repair(
    state: PoolState, live: Iterable[CallRecord], sent: Mapping[int, Collection[int]], now: float
) -> list[Instruction]:
    """Make the state whole, and return what is to be done; `sent` are the calls that each generation was sent."""
    calls = sorted(live, key=lambda call: call.order or inf)  # 0: it was just coming
    out: list[Instruction] = [instruction for instruction in state.out if type(instruction) is not Send]
    state.out = []
    _clear_queues(state)
    running = {call.id for worker in state.workers.values() for call in _keep_sent(worker, calls, sent)}
    _recount_sessions(state)
    for worker in state.workers.values():
        out += _repeat(worker, sent, now)
    for call in calls:
        if call.id not in running:
            out += _again(state, call, now)
    state.settle_sessions(now)
    return out + state.tick(now)


def _clear_queues(state: PoolState) -> None:
    records = state.sessions.values()
    workers = state.workers.values()
    for queue in (state.queue, state.suspects, *(w.queue for w in workers), *(r.waiting for r in records)):
        queue.clear()
    state.clear_counts()
    state.evict_nothing()


def _keep_sent(worker: WorkerRecord, calls: list[CallRecord], sent: Mapping[int, Collection[int]]) -> list[CallRecord]:
    """Let exactly what was sent run on the worker; return it."""
    here = sent.get(worker.generation, ())
    kept = [call for call in calls if call.id in here]
    for call in kept:
        call.queue = None
        if call.phase is not Phase.ABANDONED:
            call.phase = Phase.RUNNING
    worker.running = {call.id: call for call in kept}
    worker.load = sum(not call.is_nested for call in kept)
    if worker.exclusive is not None and worker.exclusive.id not in worker.running:
        worker.exclusive = None
    return kept


def _recount_sessions(state: PoolState) -> None:
    for worker in state.workers.values():
        worker.sessions.clear()
    for record in state.sessions.values():
        record.head = None
        record.running, record.writing = {}, 0
        home = state.workers.get(record.pin or 0)
        if home is not None:
            home.sessions.add(record.key)
            continue
        record.pin = None
        if record.is_stateful and not record.must_restore:  # it was being forgotten, or on its way elsewhere
            record.is_stateful = record.must_restore = record.is_durable
    for worker in state.workers.values():
        for call in worker.running.values():
            if call.record is not None:
                call.record.running[call.id] = call
                call.record.writing += call.use == "write"


def _repeat(worker: WorkerRecord, sent: Mapping[int, Collection[int]], now: float) -> list[Instruction]:
    """Return what may not have been sent to the worker yet."""
    out: list[Instruction] = []
    if worker.phase is WorkerPhase.STARTING and worker.generation not in sent:
        out.append(Start(worker.generation, worker.slot))
    elif worker.kill_reason:
        out.append(Kill(worker.generation, worker.kill_reason))
    elif worker.phase is WorkerPhase.STOPPING:
        out.append(Stop(worker.generation, worker.leave_reason))
    for call in worker.running.values():
        if call.phase is Phase.ABANDONED:
            worker.cancels.setdefault(call.id, now)
            out.append(Cancel(worker.generation, call.id))
    return out


def _again(state: PoolState, call: CallRecord, now: float) -> list[Instruction]:
    """Submit an unsent call once more; its place is as it was, for the others follow in their old order too."""
    was_taken = call.phase not in (Phase.NEW, Phase.DONE)
    call.phase = Phase.NEW
    call.queue = None
    call.record = None
    return state.take_again(call, now) if was_taken else state.submit(call, now)
