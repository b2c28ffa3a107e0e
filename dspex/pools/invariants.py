"""What must hold of a `PoolState` between any two events. For tests and for `validate()`; slow and thorough."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .roster import WorkerPhase, WorkerRecord
from .tickets import Phase

if TYPE_CHECKING:
    from .state import PoolState


def check(state: PoolState) -> None:
    """Raise AssertionError naming the first invariant that does not hold."""
    _check_places(state)
    for worker in state.workers.values():
        _check_worker(state, worker)
    _check_sessions(state)
    _check_no_idle_hands(state)


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)


def _check_places(state: PoolState) -> None:
    """Every queued ticket stands in exactly one place, and the count is right."""
    queued = [*state.queue.values(), *state.suspects]
    for worker in state.workers.values():
        queued += worker.queue.values()
    waiting = [ticket for session in state.sessions.values() for ticket in session.waiting]
    ids = [ticket.id for ticket in [*queued, *waiting]]
    _must(len(ids) == len(set(ids)), f"a ticket stands in two places: {sorted(ids)}")
    _must(len(ids) == state.queued, f"queued is {state.queued}, but {len(ids)} stand somewhere")
    _must(all(ticket.phase is Phase.QUEUED for ticket in queued), "a ticket in a queue is not QUEUED")
    _must(all(ticket.phase is Phase.WAITING for ticket in waiting), "a ticket in a session's line is not WAITING")


def _check_worker(state: PoolState, worker: WorkerRecord) -> None:
    counted = sum(not ticket.is_nested for ticket in worker.running.values())
    _must(worker.load == counted, f"{worker} counts {worker.load} running, has {counted}")
    _must(worker.load <= state.rules.concurrency, f"{worker} runs more than {state.rules.concurrency}")
    phases = {ticket.phase for ticket in worker.running.values()}
    _must(phases <= {Phase.RUNNING, Phase.ABANDONED}, f"{worker} runs tickets that are {phases}")
    _must(set(worker.cancels) <= set(worker.running), f"{worker} cancels what it does not run")
    if worker.phase in (WorkerPhase.STARTING, WorkerPhase.STOPPING, WorkerPhase.RETIRING):
        _must(not worker.queue, f"{worker} has calls pinned to it")
    if worker.exclusive is not None and worker.exclusive.phase is Phase.RUNNING:
        others = [t for t in worker.running.values() if t is not worker.exclusive and not t.is_nested]
        _must(not others, f"a suspect does not run alone on {worker}")


def _check_sessions(state: PoolState) -> None:
    for key, session in state.sessions.items():
        _must(session.queued <= 1, f"{session} has {session.queued} calls in queues at once")
        writers = sum(ticket.use == "write" for ticket in session.running.values())
        _must(session.writing == writers, f"{session} counts {session.writing} writers, has {writers}")
        started = [t for t in session.running.values() if not t.is_nested]
        if any(ticket.use == "write" for ticket in started):
            _must(len(started) == 1, f"a writer does not run alone in {session}")
        if session.pin is not None:
            worker = state.workers.get(session.pin)
            _must(worker is not None and key in worker.sessions, f"{session} is pinned to a worker that ignores it")
        if session.is_stateful and not session.is_durable:
            _must(session.pin is not None, f"{session} holds state nowhere")
        if session.lost:
            _must(not session.waiting and not session.queued, f"{session} is lost and has calls queued")
    for worker in state.workers.values():
        for key in worker.sessions:
            pinned = key in state.sessions and state.sessions[key].pin == worker.generation
            _must(pinned, f"{worker} keeps session {key!r} that is not pinned to it")


def _check_no_idle_hands(state: PoolState) -> None:
    """While the pool's queue holds a call, no ready worker has room for it."""
    for worker in state.workers.values():
        has_room = worker.load < state.rules.concurrency and worker.exclusive is None
        if worker.phase is WorkerPhase.READY and has_room:
            _must(not state.queue, f"{worker} has room while {len(state.queue)} calls wait")
            _must(not worker.queue, f"{worker} has room while {len(worker.queue)} calls wait for it")
