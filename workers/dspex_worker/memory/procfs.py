"""Read processes from /proc: their memory (in bytes), their CPU time, their parents and children."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
NEW_PIDS_MOST = 64  # more pids than these are not asked for their parents one by one
FIELDS = re.compile(
    rb"^(Tgid|Threads|RssAnon|RssShmem|VmSwap|HugetlbPages|Pss|Pss_Anon|Pss_Shmem):[ \t]*(\d+)( kB)?", re.MULTILINE
)
IN_MEMORY = frozenset(("tmpfs", "ramfs", "hugetlbfs", "devtmpfs"))


def held(pids: Iterable[int]) -> int:
    """Return the anonymous and shared memory of these processes, pages that they share counted once.

    Of several, it is the sum of their proportional shares (`smaps_rollup`, milliseconds for hundreds of MiB).
    """
    pids = list(pids)
    if len(pids) == 1:
        sizes = status(pids[0])
        return sizes.get("RssAnon", 0) + sizes.get("RssShmem", 0)
    total = 0
    for pid in pids:
        sizes = _fields(f"/proc/{pid}/smaps_rollup")
        total += sizes["Pss_Anon"] + sizes.get("Pss_Shmem", 0) if "Pss_Anon" in sizes else sizes.get("Pss", 0)
    return total


def cpu_ns(pid: int) -> int:
    """Return the CPU time of all threads of a process; its clock's id is what `clock_getcpuclockid(3)` gives.

    Raises:
        OSError: there is no such process.
    """
    return time.clock_gettime_ns((~pid << 3) | 2)


def rss_of(pid: int) -> int:
    """Return the resident bytes of one process; 0 if there is none."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def status(pid: int) -> dict[str, int]:
    """Return the sizes and counts of its status file; {} once it is gone."""
    return _fields(f"/proc/{pid}/status")


def _fields(path: str) -> dict[str, int]:
    """Return the numbers that matter of such a file, sizes in bytes; {} if it cannot be read."""
    try:
        text = read_once(path)
    except OSError:
        return {}
    return {name.decode(): int(number) * (1024 if unit else 1) for name, number, unit in FIELDS.findall(text)}


def files_in_memory(pid: int) -> dict[tuple[int, int], int]:
    """Return the bytes of the files in memory that it has open for writing: memfd, /dev/shm and other tmpfs."""
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
    """Return the device numbers of file systems that live in memory; those mounted later are not seen."""
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
    """Return the pids of the direct children of all of `pid`'s threads; [] once it is gone."""
    if not has_children_files():
        return [child for child, parent in _parents() if parent == pid]
    found: list[int] = []
    # That it ended while it was read is no error: what was found so far is all there is.
    with contextlib.suppress(OSError, ValueError), os.scandir(f"/proc/{pid}/task") as tasks:
        for task in tasks:
            found += map(int, _read(f"{task.path}/children").split())
    return found


def descendants(pid: int) -> list[int]:
    """Return the pids of all its descendants, parents before children."""
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


class NewPids:
    """The pids that this pid namespace assigned since the last look; the kernel shows the last one: 2 µs for all."""

    def __init__(self) -> None:
        self._fd = -1
        with contextlib.suppress(OSError):
            self._fd = os.open("/proc/loadavg", os.O_RDONLY | os.O_CLOEXEC)
        self._last = self._read_last()

    def since(self) -> Iterable[int] | None:
        """Return the pids, also of threads, that were assigned since the last time; None if that is unknown."""
        before, self._last = self._last, self._read_last()
        count = self._last - before
        return range(before + 1, self._last + 1) if before >= 0 and 0 <= count <= NEW_PIDS_MOST else None

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
    """Return the pid of its parent, or of its process's if it is a thread; 0 if it is gone."""
    try:
        return int(read_once(f"/proc/{pid}/stat").rpartition(b")")[2].split(None, 2)[1])
    except (OSError, IndexError, ValueError):
        return 0


def problem() -> str:
    """Return why memory cannot be read here; "" if it can."""
    if rss_of(os.getpid()) == 0:
        return "/proc shows no sizes of processes"
    if not status(os.getpid()).get("RssAnon"):
        return "/proc does not tell anonymous memory from other"
    return ""


def read_once(path: str) -> bytes:
    """Return what the kernel writes at once, as it does the files of one process."""
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
