"""Reading the memory of process trees from /proc; sizes are bytes.

What counts against a limit is what a worker and its descendants keep from everybody else: anonymous memory, shared
memory, swap, and files in memory (memfd, tmpfs) that they have open for writing. Pages of files on disk do not count:
the kernel takes them back when it needs them. A page that several members share counts once.

Only the resident size can be read often, and it says too much (pages of files, and shared ones once for each member).
So it decides while it is under the limit, one member's anonymous memory decides once that alone is over it, and only
between the two is the exact figure read. Not counted: files in memory that nobody has open or mapped, and the kernel's
own memory (pipes, sockets, page tables); a control group counts these too, see `cgroup`.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import stat
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from time import monotonic

PAGE = os.sysconf("SC_PAGE_SIZE")
EXACT_SHARE = 20  # an exact figure stands for that many times what it took, unless resident sizes grow
KEPT_SHARE = 0.5  # of the descriptors that this process may have are kept open
MOST_BIRTHS = 64  # more pids than these are not asked for their parents one by one
FIELDS = re.compile(
    rb"^(Tgid|Threads|RssAnon|RssShmem|VmSwap|HugetlbPages|Pss|Pss_Anon|Pss_Shmem):[ \t]*(\d+)( kB)?", re.MULTILINE
)
IN_MEMORY = frozenset(("tmpfs", "ramfs", "hugetlbfs", "devtmpfs"))


class Gauge:
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
        """Give its (resident, anonymous) bytes; zeros once it is gone."""
        try:
            fields = (os.pread(self._fd, 128, 0) if self._fd >= 0 else _read_once(self._path)).split()
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
        self._gauges: dict[int, Gauge] = {}
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
                self._gauges[pid] = Gauge(pid)
        if self._is_thorough:
            self._look_beyond()

    def admit(self, pid: int, parent: int) -> None:
        """Take in a new process, if its parent is a member."""
        if parent in self._gauges and pid not in self._gauges and _status(pid).get("Tgid") == pid:
            with contextlib.suppress(OSError):  # it has ended already
                self._gauges[pid] = Gauge(pid)

    def has_run(self) -> bool:
        """Whether a member ran since this was asked last: what rests allocates nothing, and starts nobody."""
        before = self._cpu_ns
        try:
            self._cpu_ns = sum(map(cpu_ns, self._gauges))
        except OSError:  # one of them has ended
            self._cpu_ns = -1
        return self._cpu_ns < 0 or self._cpu_ns != before

    def look(self) -> int:
        """Give the sum of the known members' resident sizes."""
        total = floor = 0
        for gauge in self._gauges.values():
            resident, anonymous = gauge.sizes()
            total += resident
            floor = max(floor, anonymous)
        self.rss, self._floor = total, floor
        self.peak = max(self.peak, total + self._beyond)
        return total

    def counted(self, limit: int | None) -> int:
        """Give what counts, as exactly as it takes to compare it with `limit`."""
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
            sizes = _status(pid)
            mapped += sizes.get("RssShmem", 0)
            more += sizes.get("VmSwap", 0) + sizes.get("HugetlbPages", 0)
            self.threads[pid] = sizes.get("Threads", 0)
            files.update(_files_in_memory(pid))
        self._beyond = more + max(0, sum(files.values()) - mapped)


def held(pids: Iterable[int]) -> int:
    """Give the anonymous and shared memory of these processes, pages that they share counted once.

    Of several, it is the sum of their proportional shares (`smaps_rollup`, milliseconds for hundreds of MiB).
    """
    pids = list(pids)
    if len(pids) == 1:
        sizes = _status(pids[0])
        return sizes.get("RssAnon", 0) + sizes.get("RssShmem", 0)
    total = 0
    for pid in pids:
        sizes = _fields(f"/proc/{pid}/smaps_rollup")
        total += sizes["Pss_Anon"] + sizes.get("Pss_Shmem", 0) if "Pss_Anon" in sizes else sizes.get("Pss", 0)
    return total


def cpu_ns(pid: int) -> int:
    """Give the CPU time of all threads of a process; its clock's id is what `clock_getcpuclockid(3)` gives.

    Raises:
        OSError: there is no such process.
    """
    return time.clock_gettime_ns((~pid << 3) | 2)


def rss_of(pid: int) -> int:
    """Give the resident bytes of one process; 0 if there is none."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def _status(pid: int) -> dict[str, int]:
    return _fields(f"/proc/{pid}/status")


def _fields(path: str) -> dict[str, int]:
    """Give the numbers that matter of such a file, sizes in bytes; {} if it cannot be read."""
    try:
        text = _read_once(path)
    except OSError:
        return {}
    return {name.decode(): int(number) * (1024 if unit else 1) for name, number, unit in FIELDS.findall(text)}


def _files_in_memory(pid: int) -> dict[tuple[int, int], int]:
    """Give the bytes of the files in memory that it has open for writing: memfd, /dev/shm and other tmpfs."""
    found: dict[tuple[int, int], int] = {}
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):  # closed in between
                facts = entry.stat()
                is_file = stat.S_ISREG(facts.st_mode) and facts.st_dev in memory_devices()
                if is_file and entry.stat(follow_symlinks=False).st_mode & stat.S_IWUSR:
                    found[facts.st_dev, facts.st_ino] = facts.st_blocks * 512
    return found


@cache
def memory_devices() -> frozenset[int]:
    """Give the device numbers of file systems that live in memory; those mounted later are not seen."""
    found = set()
    with contextlib.suppress(OSError):
        descriptor = os.memfd_create("dspex")
        found.add(os.fstat(descriptor).st_dev)
        os.close(descriptor)
    with contextlib.suppress(OSError, ValueError):
        for line in _read("/proc/self/mountinfo").decode(errors="replace").splitlines():
            mount, _, system = line.partition(" - ")
            if system.split()[0] in IN_MEMORY:
                major, minor = mount.split()[2].split(":")
                found.add(os.makedev(int(major), int(minor)))
    return frozenset(found)


# -- who belongs to a tree --


def children(pid: int) -> list[int]:
    """Give the pids of the direct children of all of `pid`'s threads; [] once it is gone."""
    if not has_children_files():
        return [child for child, parent in _parents() if parent == pid]
    found: list[int] = []
    # That it ended while it was read is no error: what was found so far is all there is.
    with contextlib.suppress(OSError, ValueError), os.scandir(f"/proc/{pid}/task") as tasks:
        for task in tasks:
            found += map(int, _read(f"{task.path}/children").split())
    return found


def descendants(pid: int) -> list[int]:
    """Give the pids of all its descendants, parents before children."""
    found: list[int] = []
    todo = children(pid)
    while todo:
        found += todo
        todo = [below for child in todo for below in children(child)]
    return found


@cache
def has_children_files() -> bool:
    """Whether this kernel lists children (CONFIG_PROC_CHILDREN); else every process has to be asked for its parent."""
    return Path(f"/proc/self/task/{os.getpid()}/children").exists() if Path("/proc/self/task").exists() else True


def _parents() -> Iterable[tuple[int, int]]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            yield int(entry.name), parent_of(int(entry.name))


class Births:
    """The pids that were given out in this pid namespace, as the kernel tells the last of them: 2 µs for everybody."""

    def __init__(self) -> None:
        self._fd = -1
        with contextlib.suppress(OSError):
            self._fd = os.open("/proc/loadavg", os.O_RDONLY | os.O_CLOEXEC)
        self._last = self._read_last()

    def since(self) -> Iterable[int] | None:
        """Give the pids, also of threads, that were given out since the last time; None if that cannot be told."""
        before, self._last = self._last, self._read_last()
        count = self._last - before
        return range(before + 1, self._last + 1) if before >= 0 and 0 <= count <= MOST_BIRTHS else None

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _read_last(self) -> int:
        try:
            return int(os.pread(self._fd, 128, 0).split()[-1])
        except (OSError, ValueError, IndexError):
            return -1


def parent_of(pid: int) -> int:
    """Give the pid of its parent, or of its process's if it is a thread; 0 if it is gone."""
    try:
        return int(_read_once(f"/proc/{pid}/stat").rpartition(b")")[2].split(None, 2)[1])
    except (OSError, IndexError, ValueError):
        return 0


def problem() -> str:
    """Say why memory cannot be read here; "" if it can."""
    if rss_of(os.getpid()) == 0:
        return "/proc shows no sizes of processes"
    if not _status(os.getpid()).get("RssAnon"):
        return "/proc does not tell anonymous memory from other"
    return ""


def _read_once(path: str) -> bytes:
    """Give what the kernel writes at once, as it does the files of one process."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 65536)
    finally:
        os.close(descriptor)


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = [os.read(descriptor, 65536)]
        while parts[-1]:
            parts.append(os.read(descriptor, 65536))
        return b"".join(parts)
    finally:
        os.close(descriptor)
