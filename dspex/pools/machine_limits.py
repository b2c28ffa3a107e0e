"""Refuse pools that this machine cannot hold, before a worker is started; each figure is a lower bound of the need.

Pure but for looks at /proc and at this process's limits.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import PoolTooLarge

DESCRIPTORS = 5  # that this process holds of a worker: its three pipes, its lifeline, its pidfd
TASKS = 2  # processes and threads that a worker is, once it has run a call
MEMORY = 4 * 2**20  # bytes that a forked worker takes for itself before it has run anything


@dataclass(frozen=True, slots=True)
class MachineLimit:
    """What there is of one thing, for all that is to come, and what one worker takes of it."""

    what: str
    each: int
    most: int
    where: str


def require_room(pool: str, size: int, *, present: int = 0) -> None:
    """Check that workers to the number of `size` can be there at once, of which `present` are there already.

    Raises:
        PoolTooLarge: this machine cannot hold so many; it says how many at most, and why.
    """
    wanted = size - present
    for limit in _limits():
        if wanted * limit.each > limit.most:
            raise PoolTooLarge(
                pool,
                size,
                most=present + limit.most // limit.each,
                need=f"{wanted * limit.each:,} {limit.what}",
                limit=f"{limit.most:,} ({limit.where})",
            )


def _limits() -> Iterator[MachineLimit]:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        yield MachineLimit("descriptors of this process", DESCRIPTORS, soft, "ulimit -n")
    for path in ("/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"):
        if (most := _number(Path(path))) is not None:
            yield MachineLimit("processes and threads", TASKS, most, path)
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY:
        yield MachineLimit("processes and threads", TASKS, soft, "ulimit -u")
    if (available := _available_memory()) is not None:
        yield MachineLimit("bytes of memory", MEMORY, available, "MemAvailable and SwapFree of /proc/meminfo")


def _number(path: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text())
    return None


def _available_memory() -> int | None:
    with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
        rows = (line.partition(":") for line in Path("/proc/meminfo").read_text().splitlines())
        sizes = {name: rest.split() for name, _, rest in rows}
        return sum(int(sizes[name][0]) * 1024 for name in ("MemAvailable", "SwapFree"))
    return None
