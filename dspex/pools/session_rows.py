"""Show the sessions of a pool. Any thread."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, TypedDict

from ..lm.redaction import redact
from ..terminal_text import inert_line

if TYPE_CHECKING:
    from .dispatcher import Dispatcher
    from .state.records import SessionRecord


class SessionRow(TypedDict):
    """One session; `idle_s` counts from the last call that was handed in.

    `worker` is where its calls go, "" while that is open. `is_stateful` says that the worker holds state for it,
    `is_durable` that the supervisor has a copy, `lost` why its state is gone ("" if it is not). `client` is "local" for
    this process itself and "shared" for sessions that all clients may use.
    """

    pool: str
    session: str
    client: str
    worker: str
    running: int
    waiting: int
    is_stateful: bool
    is_durable: bool
    idle_s: float
    lost: str


def session_rows(dispatcher: Dispatcher, limit: int) -> list[SessionRow]:
    """Return the `limit` sessions that were used last, the latest first."""
    with dispatcher.lock:
        records = sorted(dispatcher.state.sessions.values(), key=lambda record: record.last_used, reverse=True)[:limit]
        now = monotonic()
        return [_row(dispatcher, record, now) for record in records]


def _row(dispatcher: Dispatcher, record: SessionRecord, now: float) -> SessionRow:
    client, _, id = record.key.partition("/")
    worker = dispatcher.workers.get(record.pin or 0)
    return {
        "pool": dispatcher.name,
        "session": inert_line(redact(id)),
        "client": client,
        "worker": worker.name if worker is not None else "",
        "running": len(record.running),
        "waiting": record.queued + len(record.waiting),
        "is_stateful": record.is_stateful,
        "is_durable": record.is_durable,
        "idle_s": max(0.0, now - record.last_used),
        "lost": record.lost[0] if record.lost is not None else "",
    }
