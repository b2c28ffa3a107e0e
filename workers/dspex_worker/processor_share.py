"""Give a worker its share of the processors: a nice value, and its CPUs. Linux has both per thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from .failure import Failure

NICE_MOST = 19


def take_share(pool: str, nice: int, cpus: Sequence[int] | None) -> None:
    """Set them for this process, before it runs user code.

    Raises:
        Failure: the system does not let it (SettingsError); the message says what it answered.
    """
    if nice:
        _apply(pool, "nice", nice, lambda: _give_way(nice))
    if cpus is not None:
        _apply(pool, "cpus", list(cpus), lambda: _bind(cpus))


def _give_way(nice: int) -> None:
    value = min(NICE_MOST, os.getpriority(os.PRIO_PROCESS, 0) + nice)
    for thread in _threads():
        os.setpriority(os.PRIO_PROCESS, thread, value)


def _bind(cpus: Sequence[int]) -> None:
    for thread in _threads():
        os.sched_setaffinity(thread, cpus)


def _threads() -> list[int]:
    """Return this process's threads: the lifeline's may be there already; 0 is the one that calls."""
    try:
        return [int(entry.name) for entry in os.scandir("/proc/self/task")]
    except OSError:
        return [0]


def _apply(pool: str, setting: str, value: object, take: Callable[[], None]) -> None:
    try:
        take()
    except (OSError, AttributeError) as error:
        said = getattr(error, "strerror", None) or "this system has no such call"
        raise Failure(
            "SettingsError",
            f"{setting} of pool {pool!r} is {value}, and the system did not allow it ({said}). Name other "
            f"values, or leave the setting out.",
            key=f"pools.{pool}.{setting}",
        ) from error
