"""Reading and limiting the memory of process trees, from /proc; sizes are bytes."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")


class Gauge:
    """The resident size of one process, read through a descriptor that is kept open: 4 µs instead of 16."""

    __slots__ = ("_fd", "pid")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)

    def rss(self) -> int:
        """Give its resident bytes; 0 once it is gone."""
        try:
            return int(os.pread(self._fd, 128, 0).split()[1]) * PAGE
        except (OSError, IndexError):
            return 0

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class TreeGauge:
    """The resident size of a process and all its descendants; pages that they share count once for each."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.peak = 0
        self._gauges: dict[int, Gauge] = {}
        self.rescan()

    def rescan(self) -> None:
        """Look for members that came or went."""
        members = {self.pid, *descendants(self.pid)}
        for pid in self._gauges.keys() - members:
            self._gauges.pop(pid).close()
        for pid in members - self._gauges.keys():
            with contextlib.suppress(OSError):  # it ended in between
                self._gauges[pid] = Gauge(pid)

    def rss(self) -> int:
        """Give the sum over the known members."""
        total = sum(gauge.rss() for gauge in self._gauges.values())
        self.peak = max(self.peak, total)
        return total

    def close(self) -> None:
        for gauge in self._gauges.values():
            gauge.close()
        self._gauges.clear()


def children(pid: int) -> list[int]:
    """Give the pids of the direct children of all of `pid`'s threads; [] once it is gone."""
    found: list[int] = []
    try:
        for task in os.scandir(f"/proc/{pid}/task"):
            found += map(int, Path(task.path, "children").read_text().split())
    except (OSError, ValueError):
        pass  # it ended while it was read: what was found so far is all there is
    return found


def descendants(pid: int) -> list[int]:
    """Give the pids of all its descendants, parents before children."""
    found: list[int] = []
    todo = children(pid)
    while todo:
        found += todo
        todo = [below for child in todo for below in children(child)]
    return found


def rss_of(pid: int) -> int:
    """Give the resident bytes of one process; 0 if there is none."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def prefer_as_oom_victim() -> None:
    """Ask the kernel to take this process before its host when memory runs out; and leave no core with keys in it."""
    with contextlib.suppress(OSError):  # not permitted in some containers, and only a preference
        Path("/proc/self/oom_score_adj").write_text("500")
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_data(limit: int) -> None:
    """Let allocations beyond `limit` bytes of private memory fail with MemoryError (per process, not per tree)."""
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
