"""What `stats()` and `health()` give: published shapes, and how they are filled."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TypedDict

from ..usage_stats import UsageStats
from .state.records import WorkerPhase

if TYPE_CHECKING:
    from ..config import PoolConfig
    from ..errors import WorkerBootError
    from .processes.worker_process import Worker
    from .state.machine import PoolState


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
    """How the memory cap is enforced here: the layers that hold the ready workers now, and those that do not, and why.

    `is_enforced` is False if nothing would end a worker that goes over the cap.
    """

    cap_bytes: int | None
    is_enforced: bool
    layers: list[str]
    missing: list[str]


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
    template_pid: int | None,
    boot_error: WorkerBootError | None,
    usage: UsageStats,
) -> PoolStats:
    """Fill the shape; the pool's lock is held. How the cap is enforced is for `guards.observe` to say."""
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
        "lifeline": _lifeline(workers),
        "reaper": f"template {template_pid}" if template_pid is not None else "lost",
        "poison": state.poison.in_quarantine(now),
        "last_boot_error": str(boot_error) if boot_error is not None else None,
    }


def health_of(stats: PoolStats) -> PoolHealth:
    """Whether the pool can take a call now."""
    is_ready = any(row["phase"] == WorkerPhase.READY for row in stats["workers"]) and stats["state"] != "closed"
    reason = "" if is_ready else stats["last_boot_error"] or f"the pool is {stats['state']}"
    return {"pool": stats["pool"], "is_ready": is_ready, "state": stats["state"], "reason": reason}


def _lifeline(workers: Mapping[int, Worker]) -> str:
    """What ends the workers when this process is killed; the weakest, if they differ."""
    if any(worker.greeting.get("lifeline") == "watch" for worker in workers.values()):
        return "watch (a thread of each worker waits for the end of a pipe; the template kills)"
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
