"""What a supervisor's process and its workers hold, read from /proc."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from dspex_worker.memory.procfs import children, descendants, rss_of


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the process holds; sizes in bytes."""

    descriptors: int
    threads: int
    children: int
    zombies: int
    rss: int

    @classmethod
    def now(cls) -> Holdings:
        gc.collect()
        return cls(
            descriptor_count(), threading.active_count(), len(children(os.getpid())), zombies(), rss_of(os.getpid())
        )

    def is_as_many_as(self, other: Holdings) -> bool:
        """Whether nothing was added and nothing is missing; sizes aside."""
        return self.counts == other.counts

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.descriptors, self.threads, self.children


def descriptor_count() -> int:
    """How many descriptors this process has open; the one that looks is not counted."""
    return len(list(Path("/proc/self/fd").iterdir())) - 1


def descriptors() -> list[str]:
    """What each open descriptor is."""
    found = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that looks
            found.append(str(path.readlink()))
    return found


def zombies() -> int:
    """How many processes below this one have ended and were not reaped."""
    return sum(_state(pid) == "Z" for pid in descendants(os.getpid()))


def pss_of(pid: int) -> int:
    """A process's bytes, pages that it shares counted in proportion; 0 if it has gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # it ended while it was looked at
    return 0


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
