"""What this machine offers this process: cores, memory, shared memory and GPUs, as far as its limits let it.

A container's limits (its control groups, its CPU set) count, not the machine's own figures alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
GPU_PATIENCE = 10.0  # seconds that nvidia-smi may take
_UNLIMITED = 1 << 60  # version 1 writes "no limit" as a number near 2**63


@dataclass(frozen=True, slots=True)
class Cores:
    """How many there are, may be used (the CPU set), and are paid for (the quota of the control group)."""

    present: int
    usable: int
    quota: float | None

    @property
    def counted(self) -> float:
        """How many can be busy at once."""
        return self.usable if self.quota is None else min(float(self.usable), self.quota)


@dataclass(frozen=True, slots=True)
class MachineMemory:
    """Bytes: of the machine, available now, and allowed by the control group less what it holds already."""

    total: int
    available: int
    cgroup_limit: int | None
    cgroup_used: int | None

    @property
    def free(self) -> int:
        """How much this process and its children can still take."""
        if self.cgroup_limit is None:
            return self.available
        return max(0, min(self.available, self.cgroup_limit - (self.cgroup_used or 0)))


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU that nvidia-smi sees; bytes."""

    name: str
    total: int
    used: int


def cores(groups: Path = CGROUPS, own: str | None = None) -> Cores:
    """Return them."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for quota in map(_quota, _groups(groups, "cpu", own)) if quota is not None]
    return Cores(os.cpu_count() or 1, usable, min(quotas, default=None))


def memory(groups: Path = CGROUPS, own: str | None = None) -> MachineMemory:
    """Return it; of several control groups above each other the tightest counts."""
    import psutil

    seen = psutil.virtual_memory()
    limits = [found for found in map(_memory_limit, _groups(groups, "memory", own)) if found is not None]
    limit, used = min(limits, key=lambda found: found[0] - found[1], default=(None, None))
    return MachineMemory(int(seen.total), int(seen.available), limit, used)


def shared_memory() -> tuple[int, int] | None:
    """Return the size of /dev/shm and what is free in it, in bytes; None if there is none."""
    with contextlib.suppress(OSError):
        usage = shutil.disk_usage("/dev/shm")
        return usage.total, usage.free
    return None


def gpus() -> tuple[Gpu, ...]:
    """Return what nvidia-smi lists; nothing where it is not installed or fails."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return ()
    asked = [command, "--query-gpu=name,memory.total,memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=GPU_PATIENCE, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(_gpus_of(done.stdout))


def _gpus_of(text: str) -> Iterator[Gpu]:
    for line in text.splitlines():
        parts = [part.strip() for part in line.rsplit(",", 2)]
        if len(parts) == 3:
            total, used = (int(part) * 2**20 if part.isdecimal() else 0 for part in parts[1:])
            yield Gpu(parts[0], total, used)


def _groups(root: Path, controller: str, own: str | None) -> Iterator[Path]:
    """Yield the folders of this process's control group and those above it; both versions of them."""
    text = own
    if text is None:
        with contextlib.suppress(OSError):
            text = Path("/proc/self/cgroup").read_text(encoding="utf-8")
    for line in (text or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            base = root
        elif controller in controllers.split(","):
            base = next((one for one in (root / controllers, root / controller) if one.is_dir()), root / controller)
        else:
            continue
        folder = base / path.lstrip("/")
        for one in (folder, *folder.parents):
            if one == base or base in one.parents:
                yield one


def _quota(group: Path) -> float | None:
    if (words := _words(group / "cpu.max")) and words[0].isdecimal():
        return int(words[0]) / int(words[1])
    quota, period = _words(group / "cpu.cfs_quota_us"), _words(group / "cpu.cfs_period_us")
    if quota and period and quota[0].isdecimal():
        return int(quota[0]) / int(period[0])
    return None


def _memory_limit(group: Path) -> tuple[int, int] | None:
    for limit_file, used_file in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        limit, used = _words(group / limit_file), _words(group / used_file)
        if limit and limit[0].isdecimal() and int(limit[0]) < _UNLIMITED:
            return int(limit[0]), int(used[0]) if used and used[0].isdecimal() else 0
    return None


def _words(path: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="ascii").split()
    return []
