"""What `PoolState` knows of its workers. Pure data and small questions about it."""

from __future__ import annotations

from enum import StrEnum

from .lines import CallQueue
from .records import CallRecord, Phase


class WorkerPhase(StrEnum):
    """A worker's life, forward only."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"  # a planned stop: only calls of stateful sessions that live there (S8)
    RETIRING = "retiring"  # a cancelled call will not end: likewise, and killed when the others have ended (K3, K5)
    STOPPING = "stopping"  # told to stop or being killed


READY = WorkerPhase.READY  # for hot paths: an enum's member costs two look-ups


class WorkerRecord:
    """One generation of one slot."""

    __slots__ = (
        "answered",
        "cancels",
        "concurrency",
        "drain_until",
        "exclusive",
        "generation",
        "is_silent_since",
        "kill_reason",
        "leave_reason",
        "load",
        "phase",
        "queue",
        "ready_at",
        "recycle_at",
        "rss",
        "running",
        "sessions",
        "slot",
        "started_at",
        "stop_by",
    )

    def __init__(self, generation: int, slot: int, now: float, concurrency: int) -> None:
        self.generation = generation
        self.slot = slot
        self.concurrency = concurrency  # as it was made; the pool's setting may have changed since
        self.phase = WorkerPhase.STARTING
        self.running: dict[int, CallRecord] = {}
        self.load = 0  # of `running`, those that count against `concurrency`
        self.queue = CallQueue()  # calls that only this worker may run
        self.sessions: set[str] = set()
        self.answered = 0
        self.started_at = now
        self.ready_at: float | None = None
        self.recycle_at: float | None = None
        self.rss = 0
        self.exclusive: CallRecord | None = None  # the suspect that this worker is kept free for, or runs
        self.cancels: dict[int, float] = {}  # abandoned calls, since when; the oldest first
        self.is_silent_since: float | None = None  # a PING without a PONG
        self.leave_reason = ""
        self.kill_reason = ""
        self.drain_until: float | None = None  # until when it serves the sessions that live there
        self.stop_by: float | None = None

    @property
    def is_staying(self) -> bool:
        """Whether it counts towards the pool's size."""
        return self.phase is WorkerPhase.READY or self.phase is WorkerPhase.STARTING

    @property
    def is_leaving(self) -> bool:
        """Whether it works on without taking anything new, until nothing holds it."""
        return self.phase is WorkerPhase.DRAINING or self.phase is WorkerPhase.RETIRING

    @property
    def is_serving(self) -> bool:
        """Whether it may be sent calls: any while READY, those of its stateful sessions while it leaves."""
        return self.phase is WorkerPhase.READY or (self.is_leaving and self.drain_until is not None)

    @property
    def live_calls(self) -> int:
        """How many of its calls somebody still waits for."""
        return sum(call.phase is Phase.RUNNING for call in self.running.values())

    def __repr__(self) -> str:
        return f"<worker {self.slot} generation {self.generation} {self.phase}, {self.load} running>"
