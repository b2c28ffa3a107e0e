"""A call's place in a pool: what `PoolState` knows of it. Pure data, changed under the pool's lock only."""

from __future__ import annotations

from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .lines import CallQueue
    from .pins import SessionRecord

SessionUse = Literal["read", "write"] | None


class Phase(StrEnum):
    """Where a ticket stands; it moves forward only, but for a redispatch (RUNNING to QUEUED or WAITING)."""

    NEW = "new"
    QUEUED = "queued"  # in a queue, for any worker or for a pinned one
    WAITING = "waiting"  # behind another call of its own session
    RUNNING = "running"
    ABANDONED = "abandoned"  # it runs, keeps its slot, and answers nobody (K0)
    DONE = "done"


class CallRecord:
    """One submitted call; `Call` adds the frame, the waiter and the outcome."""

    __slots__ = (
        "_digest",
        "command",
        "generation",
        "id",
        "is_alone",
        "is_nested",
        "line",
        "order",
        "packed",
        "phase",
        "place",
        "record",
        "retries",
        "session",
        "turn",
        "use",
    )

    def __init__(
        self,
        id: int,
        command: str = "",
        *,
        session: str | None = None,
        use: SessionUse = None,
        retries: int = 0,
        packed: bytes = b"",
        is_nested: bool = False,
    ) -> None:
        self.id = id
        self.command = command
        self.session = session
        self.use = use
        self.retries = retries  # how often it may run again after its worker died (idempotent=True)
        self.packed = packed  # the encoded arguments, where `arguments` does not say otherwise
        self.is_nested = is_nested  # made by a tool that a running call waits for: runs beyond `concurrency`
        self.is_alone = False  # a suspect: it must run with no other call beside it (C7b)
        self.phase = Phase.NEW
        self.generation = 0
        self.order = 0  # of submission, in this pool
        self.turn = 0  # among all sessions: given when nothing of its own session is before it any more
        self.place = 0  # in the line where it stands: its turn, or, in its session's line, its order
        self.record: SessionRecord | None = None  # its session's
        self.line: CallQueue | None = None  # where it stands while it is not sent
        self._digest = ""

    def digest(self) -> str:
        """Give what makes two calls the same call: the command and its arguments."""
        if not self._digest:
            self._digest = sha256(b"\0".join((self.command.encode(), self.arguments()))).hexdigest()[:16]
        return self._digest

    def arguments(self) -> bytes:
        """Give the encoded arguments."""
        return self.packed

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.command} {self.phase}>"
