"""Decide which callbacks of one pool run now, which wait, and which are refused. Pure, but for a lock.

One call must not take the room of its worker's other calls, nor one worker that of the pool's others, nor one pool the
descriptors that others need to replace a worker. What a tool led to waits for nobody: who called the tool waits for it.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..errors import TooManyCallbacks

if TYPE_CHECKING:
    from .callbacks import Callback

MIB = 1024 * 1024
Scope = Literal["call", "worker", "pool"]


@dataclass(frozen=True, slots=True)
class CallbackLimits:
    """How many callbacks may run at once, and how many more may wait for their turn."""

    call: int = 64
    worker: int = 256
    pool: int = 512
    waiting_of_call: int = 1024
    waiting_of_worker: int = 4096
    bytes_of_worker: int = 256 * MIB  # of their frames, running and waiting

    @classmethod
    def of_host(cls, descriptors: int, pools: int) -> CallbackLimits:
        """Return the limits for so many descriptors: requests to language models hold one each.

        All pools together take a quarter. With 1,024 descriptors and two pools a call may have 32 requests on their
        way, as many as the threads of `dspy.Parallel` or of an evaluation; more of them wait.
        """
        pool = max(32, min(1024, descriptors // (4 * max(1, pools))))
        worker = pool // 2
        return cls(call=min(64, worker // 2), worker=worker, pool=pool)


class CallbackAdmission:
    """Counts the callbacks of one pool. Any thread."""

    def __init__(self, pool: str, limits: CallbackLimits) -> None:
        self._pool = pool
        self._limits = limits
        self._lock = threading.Lock()
        self._running: set[Callback] = set()
        self._nested: set[Callback] = set()
        self._of_call: Counter[int] = Counter()
        self._of_worker: Counter[int] = Counter()
        self._waiting: dict[int, deque[Callback]] = {}  # by call; the one whose turn was longest ago comes first
        self._waiting_of_worker: Counter[int] = Counter()
        self._bytes_of_worker: Counter[int] = Counter()

    def enter(self, request: Callback) -> bool:
        """Take a request; True if it runs now, False if it waits for `leave` to return it.

        Raises:
            TooManyCallbacks: neither: its call or its worker has too many, or too large ones.
        """
        with self._lock:
            if request.is_within_tool:
                self._require(request, "pool", len(self._nested), self._limits.pool)
                self._nested.add(request)
                return True
            self._require_room(request)
            self._bytes_of_worker[request.worker.generation] += request.size
            if self._may_run(request):
                self._run(request)
                return True
            self._waiting.setdefault(request.outer.id, deque()).append(request)
            self._waiting_of_worker[request.worker.generation] += 1
            return False

    def leave(self, request: Callback) -> list[Callback]:
        """Take a request out; return those whose turn it is now. A second time it does nothing."""
        with self._lock:
            if request in self._nested:
                self._nested.discard(request)
            elif request in self._running:
                self._running.discard(request)
                _take_one(self._of_call, request.outer.id)
                _take_one(self._of_worker, request.worker.generation)
                self._let_go_of(request)
            elif not self._stop_waiting(request):
                return []
            return self._next()

    def counts(self) -> tuple[int, int]:
        """Return how many run and how many wait."""
        with self._lock:
            return len(self._running) + len(self._nested), sum(map(len, self._waiting.values()))

    # -- how: with the lock held --

    def _require_room(self, request: Callback) -> None:
        limits, generation = self._limits, request.worker.generation
        waiting = len(self._waiting.get(request.outer.id, ()))
        self._require(request, "call", waiting, limits.waiting_of_call)
        self._require(request, "worker", self._waiting_of_worker[generation], limits.waiting_of_worker)
        size = self._bytes_of_worker[generation] + request.size
        self._require(request, "worker", size - 1, limits.bytes_of_worker, "bytes")

    def _require(self, request: Callback, scope: Scope, count: int, limit: int, what: str = "callbacks") -> None:
        if count >= limit:
            raise TooManyCallbacks(
                self._pool, request.name, scope=scope, command=request.outer.command, actual=count + 1, limit=limit,
                what=what,
            )  # fmt: skip

    def _may_run(self, request: Callback) -> bool:
        limits = self._limits
        return (
            len(self._running) < limits.pool
            and self._of_worker[request.worker.generation] < limits.worker
            and self._of_call[request.outer.id] < limits.call
        )

    def _run(self, request: Callback) -> None:
        self._running.add(request)
        self._of_call[request.outer.id] += 1
        self._of_worker[request.worker.generation] += 1

    def _stop_waiting(self, request: Callback) -> bool:
        line = self._waiting.get(request.outer.id)
        if line is None or request not in line:
            return False
        line.remove(request)
        if not line:
            del self._waiting[request.outer.id]
        _take_one(self._waiting_of_worker, request.worker.generation)
        self._let_go_of(request)
        return True

    def _let_go_of(self, request: Callback) -> None:
        _take_one(self._bytes_of_worker, request.worker.generation, request.size)

    def _next(self) -> list[Callback]:
        """Return those that may run now, one of each call in turn."""
        found: list[Callback] = []
        for call in tuple(self._waiting):
            line = self._waiting[call]
            if len(self._running) >= self._limits.pool:
                break
            if not self._may_run(line[0]):
                continue
            request = line.popleft()
            _take_one(self._waiting_of_worker, request.worker.generation)
            del self._waiting[call]
            if line:
                self._waiting[call] = line  # behind the others
            self._run(request)
            found.append(request)
        return found


def _take_one(counter: Counter[int], key: int, count: int = 1) -> None:
    """Count down, and drop what is at nothing: workers and calls come and go."""
    counter[key] -= count
    if counter[key] <= 0:
        del counter[key]
