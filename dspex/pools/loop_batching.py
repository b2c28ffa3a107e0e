"""Batch work for an event loop: one wake-up for many ended calls, one write for many frames.

Waking a loop, and writing to a worker that sleeps, are system calls that cost ten times what else a call needs. So a
loop is woken once for all calls that ended since it last looked. Its tasks then step one after another, within one turn
of the loop, and what they send is written together: at the end of the turn, or earlier if that is far.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import Protocol

MOST_HELD = 16  # frames that may wait for the end of the turn
LONGEST_TURN = 0.0005  # seconds that they may wait while the turn's other tasks send theirs


class AwaitedCall(Protocol):
    """A call that a coroutine of the loop awaits."""

    future: asyncio.Future[None] | None


class FlushedChannel(Protocol):
    """A worker's channel with frames that were not written yet."""

    def flush(self) -> None: ...


class LoopBatch:
    """The calls of one event loop. `wake` has one calling thread, the engine; the rest runs on the loop's thread."""

    __slots__ = ("_ended", "_held", "_in_turn", "_is_told", "_write_by", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = weakref.ref(loop)
        self._ended: deque[AwaitedCall] = deque()
        self._is_told = False
        self._in_turn = False
        self._held: list[FlushedChannel] = []
        self._write_by = 0.0

    def wake(self, call: AwaitedCall, loop: asyncio.AbstractEventLoop) -> None:
        """Resolve the call's future, with those of others that end before the loop comes to it."""
        self._ended.append(call)
        if self._is_told:
            return
        self._is_told = True
        try:
            loop.call_soon_threadsafe(self._resolve, loop)
        except RuntimeError:
            self._ended.clear()  # the loop is closed: nobody is left to wake, and the slots are free already (C10)

    def defer_flush(self, channels: Sequence[FlushedChannel]) -> bool:
        """Return whether the channels are flushed later, with others of this turn; if not, the caller has to."""
        if not self._in_turn:
            return False
        self._held += channels
        if len(self._held) >= MOST_HELD or monotonic() > self._write_by:
            self._flush()
        return True

    def _resolve(self, loop: asyncio.AbstractEventLoop) -> None:
        """In the loop: one cancelled future must not leave its neighbors pending for ever (C10)."""
        self._is_told = False
        woken = 0
        try:
            while self._ended:
                future = self._ended[0].future
                if future is not None and not future.done():
                    future.set_result(None)
                    woken += 1
                self._ended.popleft()
        except BaseException:  # a signal handler's
            loop.call_soon(self._resolve, loop)
            raise
        if woken > 1:
            loop.call_soon(self._end_turn, loop)  # after the tasks, which set_result has put in line
            self._in_turn = True
            self._write_by = monotonic() + LONGEST_TURN

    def _end_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._in_turn = False
        try:
            self._flush()
        except BaseException:  # a signal handler's
            loop.call_soon(self._end_turn, loop)
            raise

    def _flush(self) -> None:
        for channel in self._held:
            channel.flush()
        self._held.clear()  # not before: what an exception leaves undone is done by the next flush
        self._write_by = monotonic() + LONGEST_TURN


class LoopBatches:
    """The batches of the loops that call one pool."""

    def __init__(self) -> None:
        self._by_id: dict[int, LoopBatch] = {}

    def of(self, loop: asyncio.AbstractEventLoop) -> LoopBatch:
        """Return the loop's batch."""
        loop_batch = self._by_id.get(id(loop))
        if loop_batch is None or loop_batch.loop() is not loop:
            alive = {key: known for key, known in tuple(self._by_id.items()) if known.loop() is not None}
            loop_batch = alive[id(loop)] = LoopBatch(loop)
            self._by_id = alive
        return loop_batch
