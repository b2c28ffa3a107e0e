"""Every event that DSPex emits: the enum of names, and the bus to the log and to subscribers.

`emit` may be called from any thread, also from the engine and under no lock: it only appends to a queue. One daemon
thread of the bus writes the log lines (through the standard `logging` logger "dspex", so that the host decides) and
calls the subscribers; nothing that they do can slow or stop a pool. Where no supervisor runs there is no bus: what the
native side has to say goes to the log at once (`write_log`).
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from queue import SimpleQueue
from typing import Any

from . import log_records, spans


class Name(StrEnum):
    """The names of events: `dspex.<noun>.<past participle>`. The comment is the log level."""

    SUPERVISOR_STARTED = "dspex.supervisor.started"  # info
    SUPERVISOR_STOPPED = "dspex.supervisor.stopped"  # info
    CLIENT_REFUSED = "dspex.client.refused"  # warning
    CLIENT_DROPPED = "dspex.client.dropped"  # warning
    CLIENT_LOST = "dspex.client.lost"  # warning
    CLIENT_RECONNECTED = "dspex.client.reconnected"  # info
    CONTROL_HINDERED = "dspex.control.hindered"  # error
    CONTROL_RESTORED = "dspex.control.restored"  # warning
    POOL_DEGRADED = "dspex.pool.degraded"  # error
    POOL_RESIZED = "dspex.pool.resized"  # info
    POOL_DRAINED = "dspex.pool.drained"  # info
    POOL_RESUMED = "dspex.pool.resumed"  # info
    POOL_RECONFIGURED = "dspex.pool.reconfigured"  # info
    CAP_UNENFORCED = "dspex.cap.unenforced"  # warning
    FORKSERVER_WARMED = "dspex.forkserver.warmed"  # info
    FORKSERVER_FAILED = "dspex.forkserver.failed"  # error
    FORKSERVER_LOST = "dspex.forkserver.lost"  # warning
    WORKER_STARTED = "dspex.worker.started"  # debug
    WORKER_READY = "dspex.worker.ready"  # info
    WORKER_STOPPED = "dspex.worker.stopped"  # info
    WORKER_DIED = "dspex.worker.died"  # error
    WORKER_KILLED = "dspex.worker.killed"  # warning
    WORKER_RECYCLING = "dspex.worker.recycled"  # info
    WORKER_RETIRING = "dspex.worker.retired"  # warning
    WORKER_LOGGED = "dspex.worker.logged"  # by its own level
    WORKER_REPORTED = "dspex.worker.reported"  # debug
    CALL_REDISPATCHED = "dspex.call.redispatched"  # warning
    CALL_ABANDONED = "dspex.call.abandoned"  # debug
    CALLBACK_REFUSED = "dspex.callback.refused"  # warning
    TOOL_LEFT = "dspex.tool.left"  # error
    REPORT_DROPPED = "dspex.report.dropped"  # warning
    SESSION_MOVED = "dspex.session.moved"  # debug
    SESSION_LOST = "dspex.session.lost"  # warning
    SESSION_EXPIRED = "dspex.session.expired"  # info
    INPUT_SUSPECTED = "dspex.input.suspected"  # warning
    LM_RETRIED = "dspex.lm.retried"  # info
    LM_RESENT = "dspex.lm.resent"  # info
    LM_FAILED_OVER = "dspex.lm.failed_over"  # warning
    LM_TRUNCATED = "dspex.lm.truncated"  # warning
    LM_LIMITED = "dspex.lm.limited"  # debug
    LM_CIRCUIT_OPENED = "dspex.lm.circuit_opened"  # warning
    LM_CIRCUIT_CLOSED = "dspex.lm.circuit_closed"  # info
    LM_UNVERIFIED = "dspex.lm.unverified"  # warning
    CACHE_REFUSED = "dspex.cache.refused"  # warning
    CACHE_DAMAGED = "dspex.cache.damaged"  # warning
    SETTINGS_EXPOSED = "dspex.settings.exposed"  # warning
    ROUTE_CHANGED = "dspex.route.changed"  # warning
    JOB_STARTED = "dspex.job.started"  # info
    JOB_RESUMED = "dspex.job.resumed"  # warning
    JOB_ENDED = "dspex.job.ended"  # info
    PROGRAM_STRIPPED = "dspex.program.stripped"  # warning


_LEVELS: dict[Name, int] = {
    Name.POOL_DEGRADED: logging.ERROR,
    Name.FORKSERVER_FAILED: logging.ERROR,
    Name.WORKER_DIED: logging.ERROR,
    Name.CONTROL_HINDERED: logging.ERROR,
    Name.CONTROL_RESTORED: logging.WARNING,
    Name.CLIENT_REFUSED: logging.WARNING,
    Name.CLIENT_DROPPED: logging.WARNING,
    Name.CLIENT_LOST: logging.WARNING,
    Name.FORKSERVER_LOST: logging.WARNING,
    Name.CAP_UNENFORCED: logging.WARNING,
    Name.WORKER_KILLED: logging.WARNING,
    Name.WORKER_RETIRING: logging.WARNING,
    Name.CALL_REDISPATCHED: logging.WARNING,
    Name.CALLBACK_REFUSED: logging.WARNING,
    Name.TOOL_LEFT: logging.ERROR,
    Name.REPORT_DROPPED: logging.WARNING,
    Name.SESSION_LOST: logging.WARNING,
    Name.INPUT_SUSPECTED: logging.WARNING,
    Name.LM_FAILED_OVER: logging.WARNING,
    Name.LM_TRUNCATED: logging.WARNING,
    Name.LM_CIRCUIT_OPENED: logging.WARNING,
    Name.LM_UNVERIFIED: logging.WARNING,
    Name.CACHE_REFUSED: logging.WARNING,
    Name.CACHE_DAMAGED: logging.WARNING,
    Name.SETTINGS_EXPOSED: logging.WARNING,
    Name.ROUTE_CHANGED: logging.WARNING,
    Name.JOB_RESUMED: logging.WARNING,
    Name.PROGRAM_STRIPPED: logging.WARNING,
    Name.WORKER_STARTED: logging.DEBUG,
    Name.WORKER_REPORTED: logging.DEBUG,
    Name.CALL_ABANDONED: logging.DEBUG,
    Name.SESSION_MOVED: logging.DEBUG,
    Name.LM_LIMITED: logging.DEBUG,
}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; `time` is on `time.time()`'s clock."""

    name: Name
    facts: Mapping[str, Any] = field(default_factory=dict)
    time: float = 0.0

    @property
    def level(self) -> int:
        if self.name is Name.WORKER_KILLED and self.facts.get("reason") == "stopped":
            return logging.INFO  # it was still starting when its pool was stopped: the end of every short script
        own = self.facts.get("level") if self.name is Name.WORKER_LOGGED else None
        return own if isinstance(own, int) else _LEVELS.get(self.name, logging.INFO)


@dataclass(slots=True)
class Reports:
    """The undelivered reports of one source: the source counts bytes in, the bus counts them out."""

    most_bytes: int
    came: int = 0  # bytes; written by the source's thread alone
    went: int = 0  # bytes; written by the bus's thread alone
    dropped: int = 0  # reports since the last that was delivered


@dataclass(frozen=True, slots=True)
class Report:
    """An event that another process reported, and how many bytes it took."""

    event: Event
    size: int
    source: Reports


Subscriber = Callable[[Event], object]


class Bus:
    """Carries events from where they happen to the log and to subscribers, on a thread of its own."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Event | Report | threading.Event | None] = SimpleQueue()
        self._subscribers: list[Subscriber] = []
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._deliver_forever, name="dspex-events", daemon=True)
        self._thread.start()

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber(event)` for every event from now on; return what ends it."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber) if subscriber in self._subscribers else None

    def emit(self, name: Name, /, **facts: Any) -> None:
        self._queue.put(Event(name, correlated(facts), time.time()))

    def report(self, source: Reports, size: int, name: Name, facts: Mapping[str, Any], **who: Any) -> None:
        """`emit` what a process reported in `size` bytes; dropped and counted while more of it waits than may."""
        if source.came - source.went + size > source.most_bytes:
            source.dropped += 1
            return
        if source.dropped:
            self.emit(Name.REPORT_DROPPED, count=source.dropped, limit=source.most_bytes, **who)
            source.dropped = 0
        source.came += size
        self._queue.put(Report(Event(name, correlated({**facts, **who}), time.time()), size, source))

    def flush(self, timeout: float = 1.0) -> bool:
        """Wait until everything emitted so far was delivered; False if that took longer than `timeout` seconds."""
        if self._thread is None or not self._thread.is_alive():
            return True
        done = threading.Event()
        self._queue.put(done)
        return done.wait(timeout)

    def stop(self) -> None:
        """Deliver what was emitted, then end the thread."""
        self._queue.put(None)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=1.0)

    def _deliver_forever(self) -> None:
        while (item := self._queue.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
                continue
            event = item.event if isinstance(item, Report) else item
            for subscriber in (write_log, *self._subscribers):
                self._call(subscriber, event)
            if isinstance(item, Report):
                item.source.went += item.size

    def _call(self, subscriber: Subscriber, event: Event) -> None:
        try:
            subscriber(event)
        except (
            Exception
        ):  # its error is its own (a log handler on a closed stream), and must not end the others' events
            with contextlib.suppress(Exception):
                logging.getLogger("dspex").exception("a subscriber of %s failed", event.name)


def correlated(facts: dict[str, Any]) -> dict[str, Any]:
    """Return facts with the ids of the span that they belong to, if spans are made."""
    return facts if spans.source is None else {**facts, **spans.source.ids(facts.get("call"))}


def write_log(event: Event) -> None:
    """Write the event's log line, on the calling thread; the bus does it for what it carries."""
    if event.name is Name.WORKER_LOGGED:
        log_records.write_output(event.level, event.facts)
    else:
        log_records.write_event(event.name.value, event.level, event.facts)
