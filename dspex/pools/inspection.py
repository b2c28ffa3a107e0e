"""Look into all pools of a supervisor: calls, sessions, clients, stacks. Any thread; each answer is bounded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import TypedDict

from ..errors import InvalidInput, UnknownName
from .call_rows import ROWS_MOST, CallRow
from .pool import Pool
from .session_rows import SessionRow
from .worker_stacks import StackLook, WorkerStacks


class ClientRow(TypedDict):
    """One connection to a control service: "client", or "operator", which makes no calls.

    `pid` is 0 where the process cannot be seen from here. `requests` are under way, `unread_bytes` wait to be read by
    it, `idle_s` counts from its last request.
    """

    client: str
    role: str
    pid: int
    age_s: float
    idle_s: float
    requests: int
    unread_bytes: int


class Inspection:
    """What an operator looks at in one supervisor."""

    def __init__(self, pools: Mapping[str, Pool]) -> None:
        self._pools = pools
        self._services: list[Callable[[], list[ClientRow]]] = []

    def calls(self, pool: str | None, limit: int) -> list[CallRow]:
        """Return the oldest `limit` calls that run or wait, of one pool or of all."""
        limit = _checked(limit)
        rows = [row for one in self._of(pool) for row in one.live_calls.rows(limit)]
        return sorted(rows, key=lambda row: row["id"])[:limit]

    def cancel(self, id: int, by: str) -> bool:
        """End a call; False if none of this id runs or waits, or it is ending already."""
        return any(one.live_calls.cancel(id, by) for one in self._pools.values())

    def sessions(self, pool: str | None, limit: int) -> list[SessionRow]:
        """Return the `limit` sessions that were used last, of one pool or of all."""
        limit = _checked(limit)
        rows = [row for one in self._of(pool) for row in one.session_rows(limit)]
        return sorted(rows, key=lambda row: row["idle_s"])[:limit]

    def clients(self) -> list[ClientRow]:
        """Return who is connected to the supervisor's control services."""
        return [row for rows in tuple(self._services) for row in rows()]

    def add_service(self, rows: Callable[[], list[ClientRow]]) -> Callable[[], None]:
        """Have `clients` ask a control service too; return what ends that."""
        self._services.append(rows)
        return lambda: self._services.remove(rows) if rows in self._services else None

    def look_at_stacks(self, worker: str | int) -> StackLook:
        """Begin to look at the stacks of a worker, by its name (such as "dspy/0") or its pid.

        Raises:
            UnknownName: there is no such worker.
        """
        for one in self._pools.values():
            with contextlib.suppress(UnknownName):
                return one.look_at_stacks(worker)
        known = [row["worker"] for one in self._pools.values() for row in one.stats()["workers"]]
        raise UnknownName("worker", str(worker), known)

    def stacks(self, worker: str | int) -> WorkerStacks:
        """Return a worker's stacks; waits for it.

        Raises:
            UnknownName: there is no such worker.
        """
        return self.look_at_stacks(worker).wait()

    def _of(self, pool: str | None) -> list[Pool]:
        if pool is None:
            return list(self._pools.values())
        try:
            return [self._pools[pool]]
        except KeyError:
            raise UnknownName("pool", pool, self._pools) from None


def _checked(limit: int) -> int:
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 < limit <= ROWS_MOST:
        raise InvalidInput(f"limit is {limit!r}: give a whole number from 1 to {ROWS_MOST:,}.", field="limit")
    return limit
