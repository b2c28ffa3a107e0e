"""What `PoolState` knows of sessions (RULES S). Pure data and small questions about it."""

from __future__ import annotations

from collections import deque

from .tickets import Ticket


class SessionRecord:
    """One session in one pool."""

    __slots__ = (
        "is_durable",
        "is_stateful",
        "key",
        "last_used",
        "lost",
        "must_restore",
        "pin",
        "queued",
        "running",
        "waiting",
        "writing",
    )

    def __init__(self, key: str, now: float, *, is_durable: bool = False) -> None:
        self.key = key
        self.is_durable = is_durable
        self.is_stateful = False  # a reply said that its worker holds state for it (S4)
        self.must_restore = False  # durable state waits in the supervisor for its next worker (S9)
        self.pin: int | None = None  # the generation of its worker
        self.lost: tuple[str, int] | None = None  # (reason, generation), until it is opened with fresh=True (S6)
        self.running: dict[int, Ticket] = {}
        self.writing = 0  # of `running`, those whose command declared session="write"
        self.queued = 0  # its calls that stand in a worker's or the pool's queue: one at most, so that order holds
        self.waiting: deque[Ticket] = deque()  # its calls behind that one, or behind a writer
        self.last_used = now

    @property
    def is_idle(self) -> bool:
        return not (self.running or self.queued or self.waiting)

    @property
    def is_bound(self) -> bool:
        """Whether its calls must go to its worker: state is there, or a running call may be making some."""
        return self.is_stateful or self.writing > 0

    def admits(self, ticket: Ticket) -> bool:
        """Whether `ticket` may start now: in order, and a writer alone (S3)."""
        if self.queued:
            return False
        return not self.running if ticket.use == "write" else not self.writing

    def __repr__(self) -> str:
        return f"<session {self.key!r} at {self.pin}, {len(self.running)} running, {len(self.waiting)} waiting>"
