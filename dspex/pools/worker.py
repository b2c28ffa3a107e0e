"""One worker of a pool: its process, the calls sent to it, and its open callbacks."""

from __future__ import annotations

from typing import Protocol

from .call import Call
from .processes.engine import Engine
from .processes.forkserver_process import ForkserverProcess
from .processes.stack_request import StackRequest
from .processes.worker_process import WorkerProcess

UNREAD_MOST = 256 * 1024 * 1024  # bytes of answers that it may leave unread and ask for more


class OpenCallback(Protocol):
    """A callback that its worker waits for."""

    outer: Call

    def cancel(self) -> None: ...
    def grant(self, count: int) -> None: ...


class Worker(WorkerProcess):
    """One generation of one slot. The engine's thread changes it; `calls` is guarded by the pool's lock."""

    def __init__(
        self, generation: int, slot: int, forkserver: ForkserverProcess, engine: Engine, *, concurrency: int
    ) -> None:
        super().__init__(generation, slot, forkserver, engine, concurrency=concurrency)
        self.calls: dict[int, Call] = {}
        self.callbacks: dict[int, OpenCallback] = {}
        self.stack_request: StackRequest | None = None  # the last

    def unstarted(self) -> set[int]:
        """Return, once it is dead, the calls whose last byte it never read, which cannot have begun (C8)."""
        if self.channel is None or self.channel.is_closed or not self.calls:
            return set()
        consumed = self.channel.consumed()
        return {call.id for call in self.calls.values() if call.frame_end > consumed and not _has_sent_chunks(call)}

    def unread_answers(self) -> int:
        """The approximate bytes of answers to its callbacks that are not in its pipe yet."""
        unwritten = self.channel.unwritten if self.channel is not None else 0
        if unwritten <= UNREAD_MOST:
            return unwritten
        return unwritten - sum(len(call.frame) for call in tuple(self.calls.values()))


def _has_sent_chunks(call: Call) -> bool:
    """Return whether chunks of a call came that its worker cannot have read: they were taken, but were none."""
    return call.stream is not None and call.stream.received > 0
