"""Measure the memory of a process tree as it counts against a limit; sizes are bytes.

What counts is what a worker and its descendants keep from everybody else: anonymous memory, shared memory, swap, and
files in memory (memfd, tmpfs) that they have open for writing. Pages of files on disk do not count: the kernel takes
them back when it needs them. A page that several members share counts once.

Only the resident size can be read often, and it says too much (pages of files, and shared ones once for each member).
So it decides while it is under the limit, one member's anonymous memory decides once that alone is over it, and only
between the two is the exact figure read. Not counted: files in memory that nobody has open or mapped, and the kernel's
own memory (pipes, sockets, page tables); a control group counts these too, see `cgroup`.
"""

from __future__ import annotations

import contextlib
import os
import resource
from time import monotonic

from .procfs import PAGE, cpu_ns, descendants, files_in_memory, held, read_once, status

EXACT_SHARE = 20  # an exact figure stands for that many times what it took, unless resident sizes grow
KEPT_SHARE = 0.5  # of the descriptors that this process may have are kept open


class ProcessGauge:
    """The size of one process, read through a descriptor that is kept open: 2 µs instead of 12.

    Of a great many processes the files are opened for each reading: descriptors must be left for what else there is.
    """

    __slots__ = ("_fd", "_path", "pid")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._path = f"/proc/{pid}/statm"
        self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        if self._fd >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] * KEPT_SHARE:
            self.close()

    def sizes(self) -> tuple[int, int]:
        """Return its (resident, anonymous) bytes; zeros once it is gone."""
        try:
            fields = (os.pread(self._fd, 128, 0) if self._fd >= 0 else read_once(self._path)).split()
            resident = int(fields[1])
            return resident * PAGE, (resident - int(fields[2])) * PAGE
        except (OSError, IndexError):
            return 0, 0

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class TreeGauge:
    """The memory of a process and all its descendants. `look` is cheap; `rescan` finds who came or went.

    After a look, `rss` is the sum of resident sizes and `peak` the largest there was; `counted` gives what counts.
    """

    def __init__(self, pid: int, *, is_thorough: bool = False) -> None:
        self.pid = pid
        self.rss = 0
        self.peak = 0
        self.threads: dict[int, int] = {}  # of each member, if thorough
        self._is_thorough = is_thorough
        self._gauges: dict[int, ProcessGauge] = {}
        self._cpu_ns = -1
        self._floor = 0  # anonymous memory of the largest member: at least so much is held
        self._beyond = 0  # what resident sizes do not show
        self._exact = 0
        self._exact_rss = 0
        self._exact_again = 0.0
        self.rescan()

    def rescan(self) -> None:
        """Look for members that came or went, and for memory that is not resident in them."""
        members = {self.pid, *descendants(self.pid)}
        for pid in self._gauges.keys() - members:
            self._gauges.pop(pid).close()
        for pid in members - self._gauges.keys():
            with contextlib.suppress(OSError):  # it ended in between
                self._gauges[pid] = ProcessGauge(pid)
        if self._is_thorough:
            self._look_beyond()

    def admit(self, pid: int, parent: int) -> None:
        """Take in a new process, if its parent is a member."""
        if parent in self._gauges and pid not in self._gauges and status(pid).get("Tgid") == pid:
            with contextlib.suppress(OSError):  # it has ended already
                self._gauges[pid] = ProcessGauge(pid)

    def has_run(self) -> bool:
        """Whether a member ran since this was asked last: what rests allocates nothing, and starts nobody."""
        before = self._cpu_ns
        try:
            self._cpu_ns = sum(map(cpu_ns, self._gauges))
        except OSError:  # one of them has ended
            self._cpu_ns = -1
        return self._cpu_ns < 0 or self._cpu_ns != before

    def look(self) -> int:
        """Return the sum of the known members' resident sizes."""
        total = floor = 0
        for gauge in self._gauges.values():
            resident, anonymous = gauge.sizes()
            total += resident
            floor = max(floor, anonymous)
        self.rss, self._floor = total, floor
        self.peak = max(self.peak, total + self._beyond)
        return total

    def counted(self, limit: int | None) -> int:
        """Return what counts, as exactly as it takes to compare it with `limit`."""
        if limit is None or self.rss + self._beyond <= limit:
            return self.rss + self._beyond
        if self._floor + self._beyond > limit:
            return self._floor + self._beyond
        grown = self._exact + max(0, self.rss - self._exact_rss) + self._beyond
        if monotonic() < self._exact_again and grown <= limit:
            return grown
        return self._measure() + self._beyond

    def close(self) -> None:
        for gauge in self._gauges.values():
            gauge.close()
        self._gauges.clear()

    def _measure(self) -> int:
        began = monotonic()
        self._exact = max(self._floor, held(self._gauges))
        self._exact_rss = self.rss
        self._exact_again = monotonic() + EXACT_SHARE * (monotonic() - began)
        return self._exact

    def _look_beyond(self) -> None:
        mapped = more = 0
        files: dict[tuple[int, int], int] = {}
        self.threads = {}
        for pid in self._gauges:
            sizes = status(pid)
            mapped += sizes.get("RssShmem", 0)
            more += sizes.get("VmSwap", 0) + sizes.get("HugetlbPages", 0)
            self.threads[pid] = sizes.get("Threads", 0)
            files.update(files_in_memory(pid))
        self._beyond = more + max(0, sum(files.values()) - mapped)
