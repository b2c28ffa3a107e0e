"""Stop warmly: no new calls, a grace for running ones, and a count of those that did not end in time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ..pools.supervisor import Supervisor

LOOK = 0.05  # seconds between looks at the running calls


@dataclass(frozen=True, slots=True)
class StopRequest:
    """A request to stop the supervisor; `grace` None means the configured one.

    The second signal, or a grace of nothing, is meant to end running calls at once; a client that asks again is not: it
    may be another one, which does not know of the first.
    """

    grace: float | None
    is_signal: bool = False


def grace_of(supervisor: Supervisor, *given: float | None) -> float:
    """Return the first grace that is given, else the longest of the pools'."""
    own = [grace for grace in given if grace is not None]
    return own[0] if own else max(supervisor.pool(name).config.stop_grace for name in supervisor.pools)


def finish_calls(
    supervisor: Supervisor, grace: float, *, first: StopRequest, next_request: Callable[[float], StopRequest | None]
) -> int:
    """Close the pools, wait for running calls, and return how many still run when the grace is over.

    `next_request(seconds)` waits that long at most for another request to stop, after the `first`.
    """
    signals = int(first.is_signal)
    for name in supervisor.pools:
        supervisor.pool(name).lifecycle.close()
    deadline = time.monotonic() + grace
    while in_flight(supervisor) and time.monotonic() < deadline:
        again = next_request(LOOK)
        if again is not None:
            signals += again.is_signal
            deadline = _changed(deadline, again, signals)
    return in_flight(supervisor)


def in_flight(supervisor: Supervisor) -> int:
    """Return how many calls run now."""
    return sum(stats["in_flight"] for stats in supervisor.stats().values())


def _changed(deadline: float, request: StopRequest, signals: int) -> float:
    if request.is_signal and signals > 1:
        return time.monotonic()
    return deadline if request.grace is None else time.monotonic() + request.grace
