"""Keep the sessions of a pool: which exist, and how they end (RULES S). Pure.

It never sends a call: whoever ends something here lets the session's calls advance afterwards (see `scheduling`).
"""

from __future__ import annotations

from collections import OrderedDict

from .affinity import Affinity
from .instructions import EndReason
from .model import NEVER, PoolModel
from .records import CallRecord, SessionRecord

SWEEPS_PER_TTL = 10


class SessionTable:
    """The sessions of one pool."""

    def __init__(self, model: PoolModel, affinity: Affinity) -> None:
        self._model = model
        self._affinity = affinity
        self._evictable: OrderedDict[str, SessionRecord] = OrderedDict()  # the longest unused first
        self._next_sweep = NEVER

    # -- a session's life --

    def open(self, key: str, now: float, *, is_durable: bool = False) -> SessionRecord | None:
        """Return the session's record, a new one if need be; None if there is no room for one."""
        record = self._model.sessions.get(key)
        if record is None:
            if not self._make_room():
                return None
            record = self._model.sessions[key] = SessionRecord(key, now)
            self._schedule_sweep(now)
        record.wants_durable = record.wants_durable or is_durable
        if record.is_idle:  # what stands there was handed in before: its reply will not say what it wrote
            self._make_durable(record)
        record.is_closing = False
        self._note(record)
        return record

    def begin_afresh(self, record: SessionRecord) -> None:
        """Drop the session's state; what still runs of it ends before anything new of it starts."""
        self._end_life(record)
        for call in self._standing(record):
            self._model.dequeue(call)
            self._model.fail(call, EndReason.SESSION_LOST, reason="evicted", generation=record.generation)
        self.ended(record)

    def close(self, record: SessionRecord) -> None:
        """Drop the session once the calls that it has have ended."""
        self._end_life(record)
        record.is_closing = True
        self.ended(record)

    def use(self, record: SessionRecord, now: float) -> None:
        """Note that a call of the session was submitted."""
        record.last_used = now
        record.is_closing = False
        self._evictable.pop(record.key, None)

    def ended(self, record: SessionRecord) -> None:
        """Note that something of the session ended; after the last of this life, begin the next, or drop it."""
        if self._model.sessions.get(record.key) is not record:
            return
        while record.ends and not self._has_more(record):
            self._reset(record)
        if record.is_closing and record.is_idle:
            self._delete(record)
        else:
            self._note(record)

    def lose(self, record: SessionRecord, reason: str, generation: int) -> None:
        """Fail every call of a session whose state is gone, now and later (S6)."""
        record.lost = (reason, generation)
        record.is_stateful = record.must_restore = False
        self._model.emit("session.lost", session=record.key, reason=reason, generation=generation)
        for call in self._standing(record):
            if record.is_of_this_life(call):
                self._model.dequeue(call)
                self._model.fail(call, EndReason.SESSION_LOST, reason=reason, generation=generation)
        self._affinity.unpin(record)
        self.ended(record)

    def leave(self, record: SessionRecord) -> None:
        """Unpin the session from a leaving worker, with its state if the supervisor keeps a copy (S9)."""
        if record.is_stateful and record.is_durable:
            record.must_restore = True
        elif record.is_stateful:
            record.is_stateful = False
        self._affinity.unpin(record)
        self._note(record)

    def evict_nothing(self) -> None:
        """Drop no session to make room for another, until it is known again which may be dropped."""
        self._evictable.clear()

    def settle_all(self) -> None:
        """Find out anew which sessions have ended, and which may be dropped."""
        self._evictable.clear()
        for record in sorted(self._model.sessions.values(), key=lambda record: record.last_used):
            self.ended(record)

    # -- time and room --

    def sweep(self, now: float) -> None:
        """Drop sessions that were not used for `session_ttl` (S7)."""
        if now >= self._next_sweep:
            oldest = now - self._model.rules.session_ttl
            for record in tuple(self._model.sessions.values()):
                if record.is_idle and record.last_used <= oldest and record.lost is None:
                    self._expire(record)
            self._next_sweep = NEVER
            if self._model.sessions:
                self._schedule_sweep(now)
        self._model.tick_by(self._next_sweep)

    def reschedule(self, now: float) -> None:
        """Look at all sessions again after a change of the rules."""
        self._next_sweep = NEVER
        if self._model.sessions:
            self._schedule_sweep(now)

    # -- how --

    def _expire(self, record: SessionRecord) -> None:
        if not record.is_stateful:
            self._delete(record)
            return
        self._model.emit("session.expired", session=record.key)
        self._affinity.drop_state(record)
        self.lose(record, "expired", record.generation)

    def _make_room(self) -> bool:
        """Return whether one more session fits; the least recently used one without state may be evicted (S7)."""
        while len(self._model.sessions) >= self._model.rules.session_limit:
            if not self._evictable:
                return False
            self._delete(next(iter(self._evictable.values())))
        return True

    def _has_more(self, record: SessionRecord) -> bool:
        """Whether calls of the life that ends are left."""
        standing = record.head or record.waiting.first()
        return bool(record.running) or (standing is not None and record.is_of_this_life(standing))

    def _reset(self, record: SessionRecord) -> None:
        self._affinity.drop_state(record)
        self._affinity.unpin(record)
        record.is_stateful = record.must_restore = False
        record.lost = None
        record.is_durable = False
        del record.ends[0]
        self._make_durable(record)

    def _make_durable(self, record: SessionRecord) -> None:
        if record.wants_durable and not (record.is_stateful or record.running or record.ends):
            record.is_durable = True  # from the first write on, else the supervisor's copy would have gaps

    def _delete(self, record: SessionRecord) -> None:
        self._affinity.drop_state(record)
        self._affinity.unpin(record)
        self._evictable.pop(record.key, None)
        del self._model.sessions[record.key]

    def _end_life(self, record: SessionRecord) -> None:
        if record.ends[-1:] != [self._model.order]:
            record.ends.append(self._model.order)
        record.wants_durable = False

    def _standing(self, record: SessionRecord) -> list[CallRecord]:
        return [*([record.head] if record.head is not None else []), *record.waiting]

    def _note(self, record: SessionRecord) -> None:
        if record.is_evictable and record.key in self._model.sessions:
            self._evictable[record.key] = record
        else:
            self._evictable.pop(record.key, None)

    def _schedule_sweep(self, now: float) -> None:
        if self._next_sweep == NEVER:
            self._next_sweep = now + self._model.rules.session_ttl / SWEEPS_PER_TTL
            self._model.tick_by(self._next_sweep)
