"""Guards: what holds a pool's workers to their memory cap. As observed on the processes, not as it was meant to be.

`MemoryCap` belongs to the engine's thread; `observe` is called by whoever asks for stats, without the pool's lock.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from dspex_worker.memory import cgroup
from dspex_worker.memory.procfs import rss_of

if TYPE_CHECKING:
    from ...config import PoolConfig
    from ..stats import MemoryStats, PoolStats, WorkerStats

POLL = "every 10 to 50 ms, the worker and all its descendants"


class MemoryCap:
    """The control groups of one pool's workers, made when its first template under a cap is started."""

    def __init__(self, pool: str) -> None:
        self.problem = ""  # why there are none
        self._pool = pool
        self._branch: Path | None = None

    def branch(self, config: PoolConfig) -> str | None:
        """Give the folder for the groups of a template's workers; None if they get none."""
        if config.memory_cap is None:
            return None
        if self._branch is None:
            try:
                self._branch, self.problem = cgroup.claim(cgroup.find()), ""
            except cgroup.CgroupUnusable as error:
                self.problem = str(error)
        return str(self._branch) if self._branch is not None else None

    @property
    def has_groups(self) -> bool:
        return self._branch is not None

    def overrun(self, generation: int, cap: int) -> dict[str, int | str] | None:
        """Give what was seen if its group's limit ended this worker; for those whose template is gone (T6)."""
        if self._branch is None:
            return None
        group = cgroup.ControlGroup(self._branch / f"{self._pool}.{generation}")
        is_full, peak = group.was_full(), group.peak() or cap
        group.kill()
        group.remove(patience=0.0)
        return {"seen": peak, "peak": peak, "cap": cap, "layer": "cgroup"} if is_full else None

    def release(self) -> None:
        """Remove the groups; nothing of the pool is alive any more."""
        branch, self._branch = self._branch, None
        if branch is not None:
            cgroup.release(branch)

    def forget(self) -> None:
        """In a forked child of the host: they are the parent's."""
        self._branch = None


def observe(stats: PoolStats, *, has_template: bool, poll_problem: str, memory_cap: MemoryCap) -> PoolStats:
    """Fill in how the cap is enforced, and the size of workers that were not measured yet."""
    alive = [row for row in stats["workers"] if row["pid"]]
    for row in alive:
        if row["rss_bytes"] == 0:
            row["rss_bytes"] = row["counted_bytes"] = row["peak_bytes"] = rss_of(row["pid"])
    cap = stats["memory"]["cap_bytes"]
    if cap is not None:
        ready = [row for row in alive if row["phase"] == "ready"]
        stats["memory"] = _memory(cap, ready, has_template, poll_problem, memory_cap)
    return stats


def _memory(
    cap: int, rows: list[WorkerStats], has_template: bool, poll_problem: str, memory_cap: MemoryCap
) -> MemoryStats:
    who = "the template" if has_template else "the supervisor, until there is a template again"
    pids = [row["pid"] for row in rows]
    grouped = [memory_cap.has_groups and _is_grouped(pid) for pid in pids]
    limited = [_data_limit(pid) for pid in pids]
    layers, missing = [], []
    if poll_problem:
        missing.append(f"poll: {poll_problem}")
    else:
        layers.append(f"poll by {who}, {POLL}")
    if any(limited):
        size = max(limit for limit in limited if limit) / 2**20
        layers.append(f"rlimit: allocations over {size:.0f} MiB in one process fail{_share(limited)}")
    elif pids:
        missing.append("rlimit: not set, the bridge runs optimizers")
    if any(grouped):
        layers.append(f"cgroup: memory.max, by the kernel{_share(grouped)}")
    if not all(grouped) or not grouped:
        missing.append(f"cgroup: {memory_cap.problem or 'no worker is in one yet'}")
    scores, own = [_oom_score(pid) for pid in pids], _oom_score(os.getpid())
    if pids and min(scores) > own:
        layers.append(f"oom_score_adj: {min(scores)}, the host has {own}")
    elif pids:
        missing.append("oom_score_adj: no higher than the host's")
    is_enforced = not poll_problem or (bool(grouped) and all(grouped))
    return {"cap_bytes": cap, "is_enforced": is_enforced, "layers": layers, "missing": missing}


def _share(found: Iterable[object]) -> str:
    """Say it if not all workers have it."""
    found = list(found)
    having = sum(map(bool, found))
    return "" if having == len(found) else f" (in {having} of {len(found)} workers)"


def _is_grouped(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return f"/{cgroup.PREFIX}" in Path(f"/proc/{pid}/cgroup").read_text().rpartition("\n0::")[2]
    return False


def _data_limit(pid: int) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        soft, _ = resource.prlimit(pid, resource.RLIMIT_DATA)
        return None if soft == resource.RLIM_INFINITY else soft
    return None


def _oom_score(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())
    return 0
