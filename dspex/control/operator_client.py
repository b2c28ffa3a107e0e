"""What every client of a supervisor asks: its status, health and end. Clients differ in how they ask."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ..errors import InterruptedCall, NotRunning
from .protocol import Verb
from .request_fields import Fields

if TYPE_CHECKING:
    from ..pools.call_rows import CallRow
    from ..pools.inspection import ClientRow
    from ..pools.session_rows import SessionRow
    from ..pools.stats import PoolHealth, PoolStats
    from ..pools.worker_stacks import WorkerStacks

ROWS_MOST = 1000  # of one answer, see `Supervisor.calls`
MARGIN = 2.0  # seconds that the supervisor's own deadline may be late before the client gives up by itself
PATIENCE = 10.0  # seconds that an answer without a deadline of its own may take


class OperatorClient(ABC):
    """A supervisor in another process, as an operator sees it."""

    path: Path
    _timeouts: dict[str, float]  # of the pools, in seconds; as they were at the hello

    @abstractmethod
    def ask(self, verb: str, fields: Fields | None = None, *, what: str = "", wait: float = PATIENCE) -> Any:
        """Make a request and return its answer.

        Raises:
            Unresponsive: none came within `wait` seconds.
            ConnectionLost: the connection ended meanwhile.
        """

    @abstractmethod
    def close(self) -> None:
        """End the connection: what runs for it there is cancelled."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def status(self) -> dict[str, Any]:
        """Return {"supervisor": who it is, "pools": as `stats`, "health": as `health`}."""
        status: dict[str, Any] = self.ask(Verb.STATUS)
        return status

    def stats(self) -> dict[str, PoolStats]:
        """Return what each pool is doing now."""
        pools: dict[str, PoolStats] = self.status()["pools"]
        return pools

    def health(self) -> dict[str, PoolHealth]:
        """Return whether each pool can take a call now, and why not."""
        rows: dict[str, PoolHealth] = self.ask(Verb.HEALTH)
        return rows

    def calls(self, pool: str | None = None, *, limit: int = ROWS_MOST) -> list[CallRow]:
        """`Supervisor.calls` over there: the calls that run or wait, the oldest first.

        Raises:
            UnknownName: there is no such pool.
        """
        rows: list[CallRow] = self.ask(Verb.CALLS, {"pool": pool, "limit": limit})
        return rows

    def cancel_call(self, id: int) -> bool:
        """End a call, whoever made it: that one gets CallCancelled. False if it has ended, or was cancelled."""
        return bool(self.ask(Verb.CANCEL_CALL, {"id": id}))

    def sessions(self, pool: str | None = None, *, limit: int = ROWS_MOST) -> list[SessionRow]:
        """`Supervisor.sessions` over there: those that were used last, the latest first.

        Raises:
            UnknownName: there is no such pool.
        """
        rows: list[SessionRow] = self.ask(Verb.SESSIONS, {"pool": pool, "limit": limit})
        return rows

    def clients(self) -> list[ClientRow]:
        """Return who is connected to the supervisor, this client included."""
        rows: list[ClientRow] = self.ask(Verb.CLIENTS)
        return rows

    def stacks(self, worker: str | int) -> WorkerStacks:
        """`Supervisor.stacks` over there: the Python stacks of a worker, by its name or pid.

        Raises:
            UnknownName: there is no such worker.
        """
        stacks: WorkerStacks = self.ask(Verb.STACKS, {"worker": worker})
        return stacks

    def jobs(self) -> list[dict[str, Any]]:
        """Return the optimizations that the supervisor runs or has run lately, the oldest first."""
        rows: list[dict[str, Any]] = self.ask(Verb.JOBS)
        return rows

    def job_row(self, id: str) -> dict[str, Any]:
        """Return one of `jobs`.

        Raises:
            UnknownName: there is none of this id.
        """
        row: dict[str, Any] = self.ask(Verb.JOB, {"id": id})
        return row

    def cancel_job(self, id: str) -> bool:
        """End a job; it keeps its best so far. False if it has ended already.

        Raises:
            UnknownName: there is none of this id.
        """
        return bool(self.ask(Verb.CANCEL_JOB, {"id": id}))

    def job_program(self, id: str) -> dict[str, Any] | None:
        """Return a job's best program so far, as its file has it; None before there is one.

        Raises:
            UnknownName: there is no job of this id.
        """
        document: dict[str, Any] | None = self.ask(Verb.JOB_PROGRAM, {"id": id})
        return document

    def stop(self, grace: float | None = None) -> dict[str, Any]:
        """Ask the supervisor to stop, as `Supervisor.stop(grace)`; returns at once with its {pid, kind}."""
        answer: dict[str, Any] = self.ask(Verb.STOP, {"grace": grace})
        return answer

    def restart(self, grace: float | None = None) -> dict[str, Any]:
        """Ask a service to finish its calls and begin anew as it was started; returns at once with its {pid, kind}.

        Raises:
            UsageError: it is a host application.
            SettingsError: its settings have become wrong: it goes on as it is.
        """
        answer: dict[str, Any] = self.ask(Verb.RESTART, {"grace": grace})
        return answer

    def _limit_of(self, fields: Fields) -> float:
        """Return how long a call may take: its own timeout, else the one that its pool had at the hello."""
        timeout = fields.get("timeout")
        return float(self._timeouts.get(fields["pool"], math.inf) if timeout is None else timeout)

    def _answers(self) -> bool:
        """Return whether the supervisor is neither stopped nor stuck."""
        try:
            self.health()
        except (InterruptedCall, NotRunning):
            return False
        return True


def patience(timeout: float | None) -> float:
    """Return how long to wait for an answer that the supervisor gives within `timeout` seconds."""
    return math.inf if timeout is None else timeout + MARGIN
