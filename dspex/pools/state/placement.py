"""Decide which worker may take a call now. Pure: it answers questions, and changes nothing."""

from __future__ import annotations

from .model import PoolModel
from .records import READY, CallRecord, SessionRecord, WorkerPhase, WorkerRecord


class Placement:
    """Chooses among the workers of one pool."""

    def __init__(self, model: PoolModel) -> None:
        self._model = model

    def destination(self, record: SessionRecord | None) -> WorkerRecord | None:
        """Return the worker that may start a call of the session (or of none) now."""
        if record is not None and record.pin is not None:
            pinned = self._model.workers[record.pin]
            must_stay = self._model.binds(record)
            is_others_turn = pinned.phase is READY and self._model.queue.calls  # whoever frees a slot feeds it then
            if not is_others_turn and self.has_room_for(pinned, must_stay=must_stay):
                return pinned
            if must_stay:
                return None
        return None if self._model.queue.calls else self._freest()

    def can_start(self, call: CallRecord, record: SessionRecord | None) -> bool:
        """Whether the new call would be sent at once."""
        if call.is_nested:
            return True
        if record is not None and (record.waiting or not record.admits(call)):
            return False
        if call.is_alone:
            return not self._model.suspects and any(not worker.running for worker in self.ready())
        return self.destination(record) is not None

    def has_room_for(self, worker: WorkerRecord, *, must_stay: bool) -> bool:
        """Whether the worker can start a call that is pinned to it; one that leaves only takes those that must."""
        if worker.load >= worker.concurrency or worker.exclusive is not None or worker.queue.calls:
            return False
        return worker.phase is WorkerPhase.READY or (must_stay and worker.is_serving)

    def has_room(self, record: SessionRecord | None) -> bool:
        """Whether a worker that may run the session's calls could take one now."""
        if record is not None and record.pin is not None and self._model.binds(record):
            return self.has_room_for(self._model.workers[record.pin], must_stay=True)
        return self._freest() is not None

    def for_suspect(self, call: CallRecord) -> WorkerRecord | None:
        """Return the worker to keep free for a call that must run alone; None if there is none yet."""
        record = call.record
        if record is not None and record.pin in self._model.workers and self._model.binds(record):
            pinned = self._model.workers[record.pin]
            return pinned if pinned.is_serving else None
        return min(self.ready(), key=lambda worker: worker.load, default=None)

    def ready(self) -> list[WorkerRecord]:
        """Return the workers that take new calls."""
        return [worker for worker in self._model.workers.values() if worker.phase is WorkerPhase.READY]

    def _freest(self) -> WorkerRecord | None:
        """Return the ready worker with room that has the fewest calls, then the fewest sessions (S2)."""
        best: WorkerRecord | None = None
        for worker in self._model.workers.values():
            load = worker.load
            if load >= worker.concurrency or worker.phase is not READY or worker.exclusive is not None:
                continue
            if best is None or load < best.load or (load == best.load and len(worker.sessions) < len(best.sessions)):
                best = worker
        return best
