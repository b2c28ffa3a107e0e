"""Bind sessions to the workers that hold their state. Pure.

It never sends a call: see `scheduling`. Which sessions there are is `session_table`'s.
"""

from __future__ import annotations

from .instructions import DropSession
from .model import PoolModel
from .records import SessionRecord, WorkerRecord


class Affinity:
    """The pins of one pool's sessions."""

    def __init__(self, model: PoolModel) -> None:
        self._model = model

    def pin(self, record: SessionRecord, worker: WorkerRecord) -> str | None:
        """Bind the session to the worker it is sent to (S2); return its key if its state must go there first."""
        if record.pin != worker.generation:
            if record.pin is not None:
                self._move(record, worker)
            record.pin = record.generation = worker.generation
            worker.sessions.add(record.key)
        must_restore, record.must_restore = record.must_restore, False
        return record.key if must_restore else None

    def unpin(self, record: SessionRecord) -> None:
        """Let the session's next call go to any worker."""
        worker = self._model.workers.get(record.pin or 0)
        if worker is not None:
            worker.sessions.discard(record.key)
        record.pin = None

    def note_state(self, record: SessionRecord, held: bool, generation: int) -> None:
        """Note from a reply whether its worker has state for the session (S4)."""
        if record.lost is None and record.pin == generation:
            record.is_stateful = held

    def drop_state(self, record: SessionRecord) -> None:
        """Have the worker, and the supervisor, drop what they hold for the session."""
        if record.is_stateful and (record.is_durable or record.pin in self._model.workers):
            self._model.out.append(DropSession(record.pin or 0, record.key))

    def _move(self, record: SessionRecord, worker: WorkerRecord) -> None:
        """Unpin it: only its locality is lost, or, with `hint`, the state that it hoped to find (S5)."""
        if record.is_stateful and not record.must_restore:
            self.drop_state(record)
            record.is_stateful = False
        self.unpin(record)
        self._model.emit("session.moved", session=record.key, generation=worker.generation)
