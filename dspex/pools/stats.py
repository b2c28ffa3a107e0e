"""The published shapes of `stats()` and `health()`, and the functions that fill them."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

from dspex_worker.memory import cgroup
from dspex_worker.memory.procfs import rss_of

from ..usage_stats import UsageStats
from .state.records import WorkerPhase

if TYPE_CHECKING:
    from ..config import PoolConfig
    from ..errors import WorkerBootError
    from .processes.memory_cap import MemoryCap
    from .state.machine import PoolState
    from .worker import Worker

POLL = "every 10 to 50 ms, the worker and all its descendants"


class WorkerStats(TypedDict):
    """One worker; sizes in bytes, times in seconds.

    `rss_bytes` is the resident size of the worker and all that it started, `counted_bytes` what of it counts against
    the limits (see docs/internals/reliability.md; no more exact than it takes to compare them), `peak_bytes` the most
    there was.
    """

    worker: str
    generation: int
    pid: int
    phase: str
    running: int
    abandoned: int
    queued: int
    sessions: int
    answered: int
    age_s: float
    rss_bytes: int
    counted_bytes: int
    peak_bytes: int


class MemoryStats(TypedDict):
    """How the memory cap is enforced: the layers that hold the ready workers, and those that do not, and why.

    `is_enforced` is False if nothing would end a worker that goes over the cap.
    """

    cap_bytes: int | None
    is_enforced: bool
    layers: list[str]
    missing: list[str]


class ProcessorStats(TypedDict):
    """What the workers were given of the processors; `cpus` is None where they may run on all that the host may."""

    nice: int
    cpus: list[int] | None


class PoolStats(TypedDict):
    """One pool."""

    pool: str
    state: Literal["starting", "ready", "degraded", "closed"]
    size: int
    workers: list[WorkerStats]
    queued: int
    queue_limit: int
    in_flight: int
    sessions: int
    counts: dict[str, int]
    usage: UsageStats
    memory: MemoryStats
    processors: ProcessorStats
    lifeline: str
    reaper: str
    poison: dict[str, float]
    last_boot_error: str | None


class PoolHealth(TypedDict):
    """Whether a pool serves, and why not."""

    pool: str
    is_ready: bool
    state: str
    reason: str


def stats_of(
    config: PoolConfig,
    state: PoolState,
    workers: Mapping[int, Worker],
    counts: Mapping[str, int],
    forkserver_pid: int | None,
    boot_error: WorkerBootError | None,
    usage: UsageStats,
) -> PoolStats:
    """Fill the shape; the pool's lock is held. `observe` adds how the cap is enforced."""
    now = time.monotonic()
    rows = [_worker_stats(state, workers, generation, now) for generation in sorted(state.workers)]
    return {
        "pool": config.name,
        "state": _state_of(state),
        "size": state.size,
        "workers": rows,
        "queued": state.queued,
        "queue_limit": config.queue_limit,
        "in_flight": sum(row["running"] for row in rows),
        "sessions": len(state.sessions),
        "counts": dict(counts),
        "usage": usage,
        "memory": {"cap_bytes": config.memory_cap, "is_enforced": False, "layers": [], "missing": []},
        "processors": {"nice": config.nice, "cpus": None if config.cpus is None else list(config.cpus)},
        "lifeline": _lifeline(workers),
        "reaper": f"fork server {forkserver_pid}" if forkserver_pid is not None else "lost",
        "poison": state.poison.in_quarantine(now),
        "last_boot_error": str(boot_error) if boot_error is not None else None,
    }


def ready_workers(stats: PoolStats) -> int:
    """Return how many workers can take a call; others are still starting, or on their way out."""
    return sum(row["phase"] == WorkerPhase.READY for row in stats["workers"])


def health_of(stats: PoolStats) -> PoolHealth:
    """Return whether the pool can take a call now, and if not why; a reason beside it says what it lacks."""
    ready, size, cause = ready_workers(stats), stats["size"], stats["last_boot_error"]
    is_ready = ready > 0 and stats["state"] != "closed"
    if stats["state"] == "closed":
        reason = "the pool is closed: it was drained, or is being stopped"
    elif not is_ready:
        reason = cause or f"the pool is {stats['state']}"
    else:
        reason = f"{ready} of {size} workers are ready{f'; {cause}' if cause else ''}" if ready < size else ""
    return {"pool": stats["pool"], "is_ready": is_ready, "state": stats["state"], "reason": reason}


def _lifeline(workers: Mapping[int, Worker]) -> str:
    """Return what ends the workers when this process is killed; the weakest, if they differ."""
    if any(worker.greeting.get("lifeline") == "watch" for worker in workers.values()):
        return "watch (a thread of each worker waits for the end of a pipe; the fork server kills)"
    return "kernel (SIGKILL on a closed pipe)"


def _worker_stats(state: PoolState, workers: Mapping[int, Worker], generation: int, now: float) -> WorkerStats:
    record = state.workers[generation]
    worker = workers.get(generation)
    return {
        "worker": worker.name if worker else str(record.slot),
        "generation": generation,
        "pid": worker.pid if worker else 0,
        "phase": record.phase.value,
        "running": len(record.running),
        "abandoned": len(record.running) - record.live_calls,
        "queued": len(record.queue),
        "sessions": len(record.sessions),
        "answered": record.answered,
        "age_s": now - record.started_at,
        "rss_bytes": worker.rss if worker else 0,
        "counted_bytes": worker.counted if worker else 0,
        "peak_bytes": worker.peak if worker else 0,
    }


def _state_of(state: PoolState) -> Literal["starting", "ready", "degraded", "closed"]:
    if state.is_closed:
        return "closed"
    if any(worker.phase is WorkerPhase.READY for worker in state.workers.values()):
        return "ready"
    return "degraded" if state.restarts.is_degraded else "starting"


def observe(stats: PoolStats, *, has_forkserver: bool, poll_problem: str, memory_cap: MemoryCap) -> PoolStats:
    """Fill in how the cap is enforced, and the size of workers that were not measured yet."""
    alive = [row for row in stats["workers"] if row["pid"]]
    for row in alive:
        if row["rss_bytes"] == 0:
            row["rss_bytes"] = row["counted_bytes"] = row["peak_bytes"] = rss_of(row["pid"])
    cap = stats["memory"]["cap_bytes"]
    if cap is not None:
        ready = [row for row in alive if row["phase"] == "ready"]
        stats["memory"] = _memory(cap, ready, has_forkserver, poll_problem, memory_cap)
    return stats


def _memory(
    cap: int, rows: list[WorkerStats], has_forkserver: bool, poll_problem: str, memory_cap: MemoryCap
) -> MemoryStats:
    who = "the fork server" if has_forkserver else "the supervisor, until there is a fork server again"
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
