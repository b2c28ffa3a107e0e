"""Read one process's /proc/<pid>/stat."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
_LEAST = 20  # fields after the name, up to the start time


class ProcessStat(NamedTuple):
    """The parts that are used; `start_time` is in clock ticks since boot."""

    state: str
    parent: int
    session: int
    start_time: int

    @property
    def has_ended(self) -> bool:
        """Whether it only waits to be reaped."""
        return self.state in ("Z", "X")


def stat_of(pid: int, proc: Path = PROC) -> ProcessStat:
    """Return the fields of a process.

    Raises:
        OSError: it is gone, or not to be seen.
    """
    fields = (proc / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    if len(fields) < _LEAST:
        raise ProcessLookupError(f"process {pid} is gone")
    return ProcessStat(fields[0].decode(), int(fields[1]), int(fields[3]), int(fields[19]))
