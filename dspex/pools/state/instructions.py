"""Instructions from `PoolState`, which decides, to the dispatcher, which acts. Frozen data; no behavior."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from .records import CallRecord


class EndReason(StrEnum):
    """The reason why a call ends without an answer of its own."""

    SATURATED = "saturated"
    LATE = "late"  # its deadline had passed when it came
    UNHEALTHY = "unhealthy"
    BOOT = "boot"
    CLOSED = "closed"
    POISON = "poison"
    DIED = "died"
    SESSION_BUSY = "session_busy"
    SESSION_LOST = "session_lost"
    SESSION_LIMIT = "session_limit"
    DEADLOCK = "deadlock"


class Send(NamedTuple):  # made for each call: a named tuple takes half of the time that a frozen dataclass takes
    """Write the call's frame to the worker; if `restore` is set, that session's state goes first."""

    call: CallRecord
    generation: int
    restore: str | None = None


@dataclass(frozen=True, slots=True)
class Fail:
    """End the call with an error made from `why` and the facts."""

    call: CallRecord
    why: EndReason
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Start:
    """Start a worker."""

    generation: int
    slot: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask an idle worker to exit."""

    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill a worker and its group now."""

    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel the call in its worker, and ask it for a sign of life; repeated while the call runs."""

    generation: int
    call_id: int


@dataclass(frozen=True, slots=True)
class DropSession:
    """Drop a session's state: in the worker (0: none has it), and the supervisor's copy."""

    generation: int
    session: str


@dataclass(frozen=True, slots=True)
class Emit:
    """Emit an event."""

    event: str
    facts: dict[str, Any]


Instruction = Send | Fail | Start | Stop | Kill | Cancel | DropSession | Emit
