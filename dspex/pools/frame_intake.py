"""Bound the unfinished frames that the workers of one pool leave in this process. Runs on the engine's thread.

A worker that holds the last byte of a large frame back costs its length, and forty of them forty times that. Together
they may have `ROOM`; a worker whose large frame comes when there is none is not read until there is. The oldest
unfinished frame is always read on, so that frames of any legal size go through, one after the other; but while others
wait for the room that it takes, a frame must be whole within `PATIENCE`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .worker import Worker

ROOM = 64 * 1024 * 1024  # bytes; one frame more at most, whatever its limit is, and `SMALL` for each worker
SMALL = 1024 * 1024  # bytes that every worker may have unfinished, whatever the others do
PATIENCE = 10.0  # seconds for one frame through a pipe: 16 MiB take some 20 ms, and 1 GiB, the most, some 4 s


@dataclass(slots=True)
class _UnfinishedFrame:
    """The part of a worker's frame that has arrived."""

    size: int
    since: float  # when it began, or was read again
    is_paused: bool = False


class FrameIntake:
    """The unfinished frames of one pool. `pause` and `resume` stop and start the reading of a worker."""

    def __init__(self, pause: Callable[[Worker], None], resume: Callable[[Worker], None]) -> None:
        self.due = inf  # when to ask for those who are `late`
        self.held = 0  # bytes
        self._pause = pause
        self._resume = resume
        self._frames: dict[Worker, _UnfinishedFrame] = {}  # the oldest first

    def note(self, worker: Worker, size: int, now: float, *, is_new: bool) -> None:
        """Note how many bytes of the worker's wait for the rest of their frame; `is_new`: of a new one."""
        known = self._frames.get(worker)
        if known is None and not size:
            return
        self.held += size - (known.size if known is not None else 0)
        if not size:
            del self._frames[worker]
        elif known is None or is_new:
            self._frames.pop(worker, None)
            self._frames[worker] = _UnfinishedFrame(size, now)
        else:
            known.size = size
        self._pause_or_resume(worker, now)

    def remove(self, worker: Worker, now: float) -> None:
        """Remove a worker of which nothing is kept any more."""
        self.note(worker, 0, now, is_new=False)

    def late(self, now: float) -> list[Worker]:
        """Return the workers that have kept others waiting for too long."""
        if now < self.due:
            return []
        late = [w for w, f in self._frames.items() if _is_large(f) and not f.is_paused and f.since + PATIENCE <= now]
        self._set_due()
        return late

    def _pause_or_resume(self, worker: Worker, now: float) -> None:
        """Pause or resume the reading of workers, by what room there is."""
        oldest = next((w for w, f in self._frames.items() if _is_large(f)), None)
        frame = self._frames.get(worker)
        if frame is not None and self.held > ROOM and _is_large(frame) and worker is not oldest:
            if not frame.is_paused:
                frame.is_paused = True
                self._pause(worker)
        else:
            for other, waiting in tuple(self._frames.items()):
                if waiting.is_paused and (other is oldest or self.held <= ROOM):
                    waiting.is_paused, waiting.since = False, now
                    self._resume(other)
        self._set_due()

    def _set_due(self) -> None:
        """When the first of those that are read would be late, if anybody waits."""
        if any(frame.is_paused for frame in self._frames.values()):
            read = [f.since for f in self._frames.values() if _is_large(f) and not f.is_paused]
            self.due = min(read, default=inf) + PATIENCE
        elif self.due != inf:
            self.due = inf


def _is_large(frame: _UnfinishedFrame) -> bool:
    return frame.size > SMALL
