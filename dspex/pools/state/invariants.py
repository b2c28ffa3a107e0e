"""Check the invariants of a `PoolState`. For tests: slow and thorough."""

from __future__ import annotations

from collections import Counter

from .machine import PoolState
from .records import Phase, SessionRecord, WorkerPhase, WorkerRecord


def check(state: PoolState) -> None:
    """Raise AssertionError naming the first invariant that does not hold."""
    _check_places(state)
    for worker in state.workers.values():
        _check_worker(worker)
    for key, record in state.sessions.items():
        _must(record.key == key, f"{record} is kept under {key!r}")
        _check_session(state, record)
    _check_pins(state)
    _check_no_idle_hands(state)
    _check_suspects(state)
    _must(len(state.sessions) <= state.rules.session_limit, f"{len(state.sessions)} sessions are over the limit")


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)


def _check_places(state: PoolState) -> None:
    """Check that every queued call is in exactly one queue, has it recorded, and is counted once."""
    queues = [state.queue, state.suspects, *(worker.queue for worker in state.workers.values())]
    sessions = [record.waiting for record in state.sessions.values()]
    for phase, places in ((Phase.QUEUED, queues), (Phase.WAITING, sessions)):
        for queue in places:
            for call in queue:
                _must(call.phase is phase, f"{call} stands where calls are {phase}")
                _must(call.queue is queue, f"{call} does not know where it stands")
    ids = [call.id for queue in [*queues, *sessions] for call in queue]
    _must(len(ids) == len(set(ids)), f"a call stands in two places: {sorted(ids)}")
    _must(len(ids) == state.queued, f"queued is {state.queued}, but {len(ids)} stand somewhere")
    shares = Counter(call.share for queue in [*queues, *sessions] for call in queue)
    _must(shares == state.queued_of, f"queued are {dict(shares)}, counted {state.queued_of}")


def _check_worker(worker: WorkerRecord) -> None:
    counted = sum(not call.is_nested for call in worker.running.values())
    _must(worker.load == counted, f"{worker} counts {worker.load} running, has {counted}")
    _must(worker.load <= worker.concurrency, f"{worker} runs more than {worker.concurrency}")
    for call in worker.running.values():
        _must(call.phase in (Phase.RUNNING, Phase.ABANDONED), f"{worker} runs {call}")
        _must(call.generation == worker.generation, f"{worker} runs {call} of {call.generation}")
        _must(call.queue is None, f"{call} runs and stands in a queue")
    _must(set(worker.cancels) <= set(worker.running), f"{worker} cancels what it does not run")
    if worker.phase is WorkerPhase.STARTING:
        _must(not worker.running and not worker.queue and not worker.sessions, f"{worker} is not ready for calls")
    for call in worker.queue:
        is_pinned = call.record is not None and call.record.pin == worker.generation
        _must(is_pinned, f"{call} stands in the queue of {worker} without being pinned to it")
    if worker.exclusive is not None and worker.exclusive.phase is Phase.RUNNING:
        others = [t for t in worker.running.values() if t is not worker.exclusive and not t.is_nested]
        _must(not others, f"a suspect does not run alone on {worker}")


def _check_session(state: PoolState, record: SessionRecord) -> None:
    writers = sum(call.use == "write" for call in record.running.values())
    _must(record.writing == writers, f"{record} counts {record.writing} writers, has {writers}")
    started = [call for call in record.running.values() if not call.is_nested]
    if any(call.use == "write" for call in started):
        _must(len(started) == 1, f"a writer does not run alone in {record}")
    if record.head is not None:
        _must(record.head.phase is Phase.QUEUED, f"{record} has a head that is {record.head}")
        behind = record.waiting.first()
        _must(behind is None or behind.order > record.head.order, f"{behind} was overtaken in {record}")
    first = record.waiting.first()
    _must(first is None or not record.admits(first), f"{first} could go on in {record}")
    if state.binds(record) and not record.is_durable:
        _must(record.pin is not None, f"{record} holds state nowhere")
    if record.is_durable and record.is_stateful:
        _must((record.pin is None) == record.must_restore, f"{record} has its state in two places, or in none")
    if record.lost is not None and not record.ends:
        _must(not record.waiting and record.head is None, f"{record} is lost and has calls queued")
    if record.ends or record.is_closing:
        _must(not record.is_idle, f"{record} ended and is still there")
    if record.head is not None and state.binds(record) and record.pin is not None:
        _must(record.head.queue is not state.queue, f"{record.head} may go to any worker, but its state is at one")


def _check_pins(state: PoolState) -> None:
    for key, record in state.sessions.items():
        if record.pin is not None:
            pinned = state.workers.get(record.pin)
            _must(pinned is not None and key in pinned.sessions, f"{record} is pinned to a worker that ignores it")
    for worker in state.workers.values():
        for key in worker.sessions:
            is_pinned = key in state.sessions and state.sessions[key].pin == worker.generation
            _must(is_pinned, f"{worker} keeps session {key!r} that is not pinned to it")


def _check_no_idle_hands(state: PoolState) -> None:
    """Check that while a call is queued, no worker that may run it has room for it."""
    for worker in state.workers.values():
        if worker.load >= worker.concurrency or worker.exclusive is not None:
            continue
        if worker.phase is WorkerPhase.READY:
            _must(not state.queue, f"{worker} has room while {len(state.queue)} calls wait")
        if worker.is_serving:
            _must(not worker.queue, f"{worker} has room while {len(worker.queue)} calls wait for it")


def _check_suspects(state: PoolState) -> None:
    kept = [worker for worker in state.workers.values() if worker.exclusive is not None]
    _must(len(kept) <= 1, f"{len(kept)} workers are kept free for suspects")
    for worker in kept:
        call = worker.exclusive
        _must(call is not None and call.phase is not Phase.DONE, f"{worker} is kept free for {call}")
        if call is not None and call.phase is Phase.QUEUED:
            _must(call.queue is state.suspects, f"{worker} is kept free for {call}, which stands elsewhere")
            _must(bool(worker.running) or not worker.is_serving, f"{worker} is kept free for {call}, which could run")
    if state.suspects and not kept:
        free = [w for w in state.workers.values() if w.phase is WorkerPhase.READY]
        roaming = [t for t in state.suspects if t.record is None or not state.binds(t.record)]
        _must(not (free and roaming), f"no worker is kept free for {roaming}")
