"""The records of calls, sessions and workers in a `PoolState`: plain data, with simple properties.

Pure; changed under the pool's lock only. A call may leave a queue from anywhere (its caller gave up) and may come back
to its old place (its worker died before it could begin), so a queue is a heap of places beside a dict: leaving is O(1),
and the heap skips the calls that left.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from hashlib import sha256
from heapq import heappop, heappush
from typing import Literal

SessionUse = Literal["read", "write"] | None
SPARSE = 64  # a heap this much longer than twice its calls is built anew


class Phase(StrEnum):
    """The phase of a call; it moves forward only, but for a redispatch (RUNNING to QUEUED or WAITING)."""

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
        "order",
        "packed",
        "phase",
        "place",
        "queue",
        "record",
        "retries",
        "session",
        "share",
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
        share: str = "",
    ) -> None:
        self.id = id
        self.command = command
        self.session = session
        self.use = use
        self.retries = retries  # how often it may run again after its worker died (idempotent=True)
        self.packed = packed  # the encoded arguments, where `arguments` does not say otherwise
        self.is_nested = is_nested  # made by a tool that a running call waits for: runs beyond `concurrency`
        self.share = share  # whose call it is: all shares take turns, however many calls one has
        self.is_alone = False  # a suspect: it must run with no other call beside it (C7b)
        self.phase = Phase.NEW
        self.generation = 0
        self.order = 0  # of submission, in this pool
        self.turn = 0  # among all shares and sessions: given when nothing of its own session is before it any more
        self.place = 0  # in the queue where it is: its turn, or, in its session's queue, its order
        self.record: SessionRecord | None = None  # its session's
        self.queue: CallQueue | None = None  # where it stands while it is not sent
        self._digest = ""

    def digest(self) -> str:
        """Return what makes two calls the same call: the command and its arguments."""
        if not self._digest:
            self._digest = sha256(b"\0".join((self.command.encode(), self.arguments()))).hexdigest()[:16]
        return self._digest

    def arguments(self) -> bytes:
        """Return the encoded arguments."""
        return self.packed

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.command} {self.phase}>"


class CallQueue:
    """A queue of calls, in the order of their places."""

    __slots__ = ("_heap", "calls")

    def __init__(self) -> None:
        self.calls: dict[int, CallRecord] = {}  # by place; hot paths ask `if queue.calls` whether any call is here
        self._heap: list[int] = []

    def push(self, call: CallRecord) -> None:
        """Add the call at its place."""
        self.calls[call.place] = call
        heappush(self._heap, call.place)

    def discard(self, call: CallRecord) -> None:
        """Remove the call, wherever it is."""
        self.calls.pop(call.place, None)
        if len(self._heap) > 2 * len(self.calls) + SPARSE:
            self._heap = sorted(self.calls)

    def clear(self) -> None:
        """Remove all calls."""
        self.calls.clear()
        self._heap.clear()

    def first(self) -> CallRecord | None:
        """Return the oldest call without removing it; None if the queue is empty."""
        if not self.calls:
            return None
        while (call := self.calls.get(self._heap[0])) is None:
            heappop(self._heap)
        return call

    def __len__(self) -> int:
        return len(self.calls)

    def __contains__(self, call: CallRecord) -> bool:
        return self.calls.get(call.place) is call

    def __iter__(self) -> Iterator[CallRecord]:
        """Iterate over a copy, the oldest call first."""
        return iter([self.calls[place] for place in sorted(self.calls)])

    def __repr__(self) -> str:
        return f"<{len(self)} queued>"


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
        self.is_stateful = False  # a reply reported that its worker holds state for it (S4)
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
        """The number of its calls in a queue: 0 or 1."""
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
        """Whether nothing is lost when the pool drops it (S7)."""
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


class WorkerPhase(StrEnum):
    """The phases of a worker's life, forward only."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"  # a planned stop: only calls of stateful sessions that live there (S8)
    RETIRING = "retiring"  # a cancelled call will not end: likewise, and killed when the others have ended (K3, K5)
    STOPPING = "stopping"  # asked to stop, or being killed


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
        """The number of its calls that somebody still waits for."""
        return sum(call.phase is Phase.RUNNING for call in self.running.values())

    def __repr__(self) -> str:
        return f"<worker {self.slot} generation {self.generation} {self.phase}, {self.load} running>"
