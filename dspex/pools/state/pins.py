"""What `PoolState` knows of a session (RULES S). Pure data and small questions about it."""

from __future__ import annotations

from .lines import CallQueue
from .records import CallRecord, Phase


class SessionRecord:
    """One session in one pool."""

    __slots__ = (
        "ends",
        "generation",
        "head",
        "is_closing",
        "is_durable",
        "is_stateful",
        "key",
        "last_used",
        "lost",
        "must_restore",
        "pin",
        "running",
        "waiting",
        "wants_durable",
        "writing",
    )

    def __init__(self, key: str, now: float, *, is_durable: bool = False) -> None:
        self.key = key
        self.is_durable = is_durable  # the supervisor has all of its state too (S9)
        self.wants_durable = is_durable  # asked for; it begins with a life that has no state yet
        self.is_stateful = False  # a reply said that its worker holds state for it (S4)
        self.must_restore = False  # durable state waits in the supervisor for its next worker (S9)
        self.pin: int | None = None  # the generation of its worker
        self.generation = 0  # the last pin
        self.lost: tuple[str, int] | None = None  # (reason, generation), until it is opened with fresh=True (S6)
        self.running: dict[int, CallRecord] = {}
        self.writing = 0  # of `running`, those whose command declared session="write"
        self.head: CallRecord | None = None  # its call in a worker's or the pool's queue: one at most, so order holds
        self.waiting = CallQueue()  # its calls behind that one, or behind a writer
        self.last_used = now
        self.ends: list[int] = []  # closed or begun afresh: calls of a later order belong to the next life
        self.is_closing = False

    @property
    def queued(self) -> int:
        """How many of its calls stand in a queue: 0 or 1."""
        return self.head is not None

    @property
    def is_idle(self) -> bool:
        return not self.running and self.head is None and not self.waiting

    @property
    def is_bound(self) -> bool:
        """Whether its worker matters: state is there, or a running call may be making some."""
        return self.is_stateful or self.writing > 0

    @property
    def is_stuck(self) -> bool:
        """Whether it runs a call that nobody waits for any more."""
        return any(call.phase is Phase.ABANDONED for call in self.running.values())

    @property
    def is_evictable(self) -> bool:
        """Whether nothing is lost when the pool forgets it (S7)."""
        return self.is_idle and not self.is_stateful and (not self.is_durable or self.lost is not None)

    def admits(self, call: CallRecord) -> bool:
        """Whether `call` may start now: in order, a writer alone (S3), and nothing of a life to come."""
        if self.head is not None or not self.is_of_this_life(call):
            return False
        return not self.running if call.use == "write" else not self.writing

    def is_of_this_life(self, call: CallRecord) -> bool:
        return not self.ends or call.order <= self.ends[0]

    def __repr__(self) -> str:
        return f"<session {self.key!r} at {self.pin}, {len(self.running)} running, {len(self.waiting)} waiting>"
