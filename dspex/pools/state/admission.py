"""Decide whether a new call is taken, and when a refused caller should retry. Pure."""

from __future__ import annotations

from .instructions import EndReason, Fail
from .model import PoolModel
from .placement import Placement
from .poison import Poison
from .records import CallRecord, SessionRecord
from .restarts import Restarts
from .session_table import SessionTable


class Admission:
    """Refuses or admits the calls of one pool."""

    def __init__(
        self, model: PoolModel, placement: Placement, sessions: SessionTable, poison: Poison, restarts: Restarts
    ) -> None:
        self._model = model
        self._placement = placement
        self._sessions = sessions
        self._poison = poison
        self._restarts = restarts
        self._pace = 0.0  # seconds between ends of calls while others wait, smoothed
        self.last_end: float | None = None  # None after idle time, which says nothing about the pace

    def refusal(self, call: CallRecord, now: float) -> Fail | None:
        """Return why the call is not taken; None if it is, and its record has its session then."""
        model = self._model
        if model.is_closed and not call.is_nested:
            return Fail(call, EndReason.CLOSED)
        if self._restarts.is_degraded and not any(worker.is_serving for worker in model.workers.values()):
            return Fail(call, EndReason.UNHEALTHY, {"retry_in": self._restarts.wait(now)})
        if not self._poison.is_quiet and (verdict := self._poison.verdict(call, now)) is not None:
            return Fail(call, EndReason.POISON, verdict)
        if model.is_full_for(call.share) and not self._can_start(call):
            return Fail(call, EndReason.SATURATED, {"queued": model.queued, "retry_after": self._retry_after()})
        if call.session is None:
            return None
        return self.enter_session(call, call.session, now) or self._busy_refusal(call, call.record)

    def enter_session(self, call: CallRecord, key: str, now: float) -> Fail | None:
        """Set the call's session record, or return why it cannot have one."""
        record = self._model.sessions.get(key) or self._sessions.open(key, now)
        if record is None:
            return Fail(call, EndReason.SESSION_LIMIT)
        call.record = record
        if record.lost is not None and not record.ends:
            reason, generation = record.lost
            return Fail(call, EndReason.SESSION_LOST, {"reason": reason, "generation": generation})
        return None

    def count_end(self, now: float) -> None:
        """Count the end of a call while others wait."""
        if self.last_end is not None:
            gap = now - self.last_end
            self._pace = 0.95 * self._pace + 0.05 * gap if self._pace else gap
        self.last_end = now

    def _retry_after(self) -> float:
        """Return an estimate in seconds of when a place in the queue is free, from the recent pace."""
        over = max(1, self._model.queued - self._model.rules.queue_limit + 1)
        return min(60.0, max(0.01, over * self._pace)) if self._pace else 1.0

    def _can_start(self, call: CallRecord) -> bool:
        record = self._model.sessions.get(call.session) if call.session is not None else None
        return self._placement.can_start(call, record)

    def _busy_refusal(self, call: CallRecord, record: SessionRecord | None) -> Fail | None:
        if record is None or call.is_nested or not record.is_bound:
            return None
        if self._model.rules.affinity != "strict_fail_fast":
            return None
        worker = self._model.workers.get(record.pin or 0)
        if worker is None:
            return None
        has_room = self._placement.has_room_for(worker, must_stay=self._model.binds(record))
        return None if record.admits(call) and has_room else Fail(call, EndReason.SESSION_BUSY)
