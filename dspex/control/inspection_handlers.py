"""Answer a control client's looks at calls, sessions, clients and stacks. On the service's loop: nothing waits here.

They answer while every pool is full and while workers hang: nothing of them goes through a worker's pipe, and an
operator's place is reserved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from ..errors import InvalidInput
from ..pools.call_rows import ROWS_MOST
from ..pools.supervisor import Supervisor
from . import request_fields
from .protocol import Verb
from .request_fields import Fields

LOOK = 0.01  # seconds between looks at whether a worker has answered


async def calls(supervisor: Supervisor, fields: Fields) -> list[Any]:
    """Return a row for each call that runs or waits; see `Supervisor.calls`."""
    return list(supervisor.calls(request_fields.optional_text(fields, "pool"), limit=_limit(fields)))


async def cancel(supervisor: Supervisor, fields: Fields) -> bool:
    """End the call `id`; False if it has ended."""
    return supervisor.inspection.cancel(request_fields.count(fields, "id"), "an operator")


async def sessions(supervisor: Supervisor, fields: Fields) -> list[Any]:
    """Return a row for each session; see `Supervisor.sessions`."""
    return list(supervisor.sessions(request_fields.optional_text(fields, "pool"), limit=_limit(fields)))


async def clients(supervisor: Supervisor, fields: Fields) -> list[Any]:
    """Return a row for each connection."""
    return list(supervisor.clients())


async def stacks(supervisor: Supervisor, fields: Fields) -> dict[str, Any]:
    """Return the stacks of `worker`, a name or a pid; see `Supervisor.stacks`."""
    pid = fields.get("worker")
    worker = pid if type(pid) is int else request_fields.text(fields, "worker")
    look = supervisor.inspection.look_at_stacks(worker)
    while not look.is_done:  # noqa: ASYNC110 - the kernel announces nothing
        await asyncio.sleep(LOOK)
    return dict(look.row())


def log_filter(supervisor: Supervisor, fields: Fields) -> Callable[[dict[str, Any]], bool]:
    """Return which lines of the log a client wants: of a `pool`, and of its `worker` by number; of all without.

    Raises:
        UnknownName: there is no such pool.
        InvalidInput: a worker without its pool.
    """
    pool = request_fields.optional_text(fields, "pool")
    if pool is None:
        if fields.get("worker") is not None:
            raise InvalidInput("Name the pool of that worker too.", field="worker")
        return lambda row: True
    supervisor.pool(pool)
    if fields.get("worker") is None:
        return lambda row: "dropped" in row or row["facts"].get("pool") == pool
    worker = f"{pool}/{request_fields.count(fields, 'worker')}"
    return lambda row: "dropped" in row or row["facts"].get("worker") == worker


INSPECTION_HANDLERS: Final[dict[str, Callable[[Supervisor, Fields], Awaitable[Any]]]] = {
    Verb.CALLS: calls,
    Verb.CANCEL_CALL: cancel,
    Verb.SESSIONS: sessions,
    Verb.CLIENTS: clients,
    Verb.STACKS: stacks,
}


def _limit(fields: Fields) -> int:
    return request_fields.count(fields, "limit", default=ROWS_MOST)
