"""`JobEventLog`: what happens in a job, kept for every reader from the start. Any thread, any event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

JobEventKind = Literal[
    "queued", "running", "stage", "progress", "candidate", "message", "warning", "heartbeat", "cancelling",
    "worker_died", "resumed", "done", "failed", "stopped",
]  # fmt: skip
LAST_KINDS = frozenset({"done", "failed", "stopped"})
_PASSING = frozenset({"progress", "heartbeat"})  # of several in a row only the newest is kept
MESSAGES_MOST = 5000  # of DSPy's that are kept; the oldest go first


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something that happened in a job. Numbers rise; `at` is `time.time()`.

    kind: "queued", "running", "cancelling" and the last ones ("done", "failed", "stopped") are states; "stage" says
    what the optimizer begins to do, "progress" counts, "candidate" tells a candidate that was scored, "message" and
    "warning" what DSPy or the job says, "heartbeat" that it lives while nothing else happens, "worker_died" and
    "resumed" that another worker goes on.
    """

    number: int
    kind: JobEventKind
    at: float
    facts: Mapping[str, Any]


class JobEventLog:
    """The events of one job. After one of `LAST_KINDS` there is none."""

    def __init__(self) -> None:
        self._events: list[JobEvent] = []
        self._number = 0
        self._messages = 0
        self._is_over = False
        self._ready = threading.Condition()
        self._wakers: set[Callable[[], object]] = set()

    def add(self, kind: JobEventKind, facts: Mapping[str, Any]) -> JobEvent:
        """Add an event and wake the readers."""
        with self._ready:
            event = JobEvent(self._number, kind, time.time(), dict(facts))
            self._number += 1
            if kind in _PASSING and self._events and self._events[-1].kind in _PASSING:
                self._events.pop()
            self._events.append(event)
            if kind == "message":
                self._bound_messages()
            self._is_over = self._is_over or kind in LAST_KINDS
            self._ready.notify_all()
            wakers = tuple(self._wakers)
        for wake in wakers:
            wake()
        return event

    def read(self) -> Iterator[JobEvent]:
        """Yield every event from the first, each once, until the last; blocks."""
        seen = -1
        while True:
            with self._ready:
                while not (found := self._after(seen)) and not self._is_over:
                    self._ready.wait()
            if not found:
                return
            yield from found
            seen = found[-1].number

    async def aread(self) -> AsyncIterator[JobEvent]:
        """`read`, for `async for`."""
        loop, ready, seen = asyncio.get_running_loop(), asyncio.Event(), -1

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(ready.set)
            except RuntimeError:
                pass  # the loop is closed: its reader is gone

        with self._ready:
            self._wakers.add(wake)
        try:
            while True:
                with self._ready:
                    found, is_over = self._after(seen), self._is_over
                    ready.clear()
                for event in found:
                    yield event
                    seen = event.number
                if not found:
                    if is_over:
                        return
                    await ready.wait()
        finally:
            with self._ready:
                self._wakers.discard(wake)

    def so_far(self) -> list[JobEvent]:
        """Return the events up to now."""
        with self._ready:
            return list(self._events)

    def last(self) -> JobEvent | None:
        """Return the newest event."""
        with self._ready:
            return self._events[-1] if self._events else None

    def _after(self, number: int) -> list[JobEvent]:
        first = len(self._events)
        while first and self._events[first - 1].number > number:
            first -= 1
        return self._events[first:]

    def _bound_messages(self) -> None:
        self._messages += 1
        if self._messages > MESSAGES_MOST:
            oldest = next(place for place, event in enumerate(self._events) if event.kind == "message")
            del self._events[oldest]
            self._messages -= 1
