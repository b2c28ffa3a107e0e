"""Measure what a pool takes: start one of two workers, and read what its processes hold by themselves."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

from ..config import PoolConfig
from ..pools.supervisor import Supervisor

PATIENCE = 60.0  # seconds until both workers are there
_PRIVATE = re.compile(r"^Private_(?:Clean|Dirty):\s+(\d+) kB", re.MULTILINE)
_PROPORTIONAL = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class PoolSize:
    """Bytes: what a pool takes beside its workers, and what each worker adds."""

    base: int
    worker: int

    def of(self, size: int) -> int:
        """Return what a pool of so many workers takes."""
        return self.base + size * self.worker


def measured_size(bridge: str = "dspy") -> PoolSize | None:
    """Return it for a pool without imports of the user's; None where the system does not tell what is shared.

    Raises:
        WorkerBootError: its workers do not start.
    """
    with Supervisor(pools=[PoolConfig("measured", bridge=bridge, size=2)]) as supervisor:
        supervisor.wait_ready()
        deadline = time.monotonic() + PATIENCE
        stats, workers = supervisor.stats()["measured"], list[int]()
        while time.monotonic() < deadline:
            stats = supervisor.stats()["measured"]
            workers = [row["pid"] for row in stats["workers"] if row["phase"] == "ready"]
            if len(workers) == 2:
                break
            time.sleep(0.05)
        server = re.search(r"\d+", stats["reaper"])
        pids = workers + ([int(server[0])] if server else [])
        try:
            texts = {pid: Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii") for pid in pids}
        except OSError:
            return None
    own = [sum(map(int, _PRIVATE.findall(texts[pid]))) * 1024 for pid in workers]
    whole = sum(sum(map(int, _PROPORTIONAL.findall(text))) for text in texts.values()) * 1024
    each = sum(own) // max(1, len(own))
    return PoolSize(max(0, whole - sum(own)), each)
