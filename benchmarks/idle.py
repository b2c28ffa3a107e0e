"""What a supervisor costs that has nothing to do: `python -m benchmarks idle`.

CPU time of the host, the fork server and the workers, each from its own process clock, which counts nanoseconds. A
process of its own is the host, and its main thread sleeps.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dspex
from benchmarks.report import Row, until

WORKERS = 10
GOAL = 0.5  # % of a core, all processes together
POOLS: dict[str, dict[str, Any]] = {
    "faults": {"bridge": "faults"},
    "faults, memory cap": {"bridge": "faults", "memory_cap": "512MiB"},
    "dspy": {"bridge": "dspy"},
    "dspy, memory cap": {"bridge": "dspy", "memory_cap": "1GiB"},
}


def run(*, quick: bool = False) -> dict[str, list[Row]]:
    seconds = 5 if quick else 60
    rows = [_row(name, seconds) for name in POOLS]
    return {f"An idle supervisor with {WORKERS} workers over {seconds} s: % of one core": rows}


def _row(name: str, seconds: int) -> Row:
    command = [sys.executable, "-m", "benchmarks.idle", name, str(seconds)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {
        "pool": name,
        "host": found["host"],
        "forkserver": found["forkserver"],
        "workers": found["workers"],
        "all": found["all"],
        "goal": GOAL,
        "goal met": "yes" if found["all"] < GOAL else "NO",
        "wake-ups/s": found["switches"],
    }


# -- in the process of its own --


def main() -> None:
    settings, seconds = POOLS[sys.argv[1]], float(sys.argv[2])
    with dspex.Supervisor(pools=[dspex.PoolConfig("idle", size=WORKERS, **settings)]) as sup:
        until(lambda: len(_ready(sup)) == WORKERS)
        for _ in range(3 * WORKERS):
            sup.call("idle", "ping")
        time.sleep(2.0)  # what follows a start (collections, late reports) is over
        groups = _groups(sup)
        before = {group: [_usage(pid) for pid in pids] for group, pids in groups.items()}
        began = time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        after = {group: [_usage(pid) for pid in pids] for group, pids in groups.items()}
    shares = {group: _total(after[group], 0) - _total(before[group], 0) for group in groups}
    switches = sum(_total(after[group], 1) - _total(before[group], 1) for group in groups)
    found = {group: 100 * share / took for group, share in shares.items()}
    print(json.dumps({**found, "all": sum(found.values()), "switches": switches / took}))


def _groups(sup: dspex.Supervisor) -> dict[str, list[int]]:
    stats = sup.pool("idle").stats()
    workers = [row["pid"] for row in stats["workers"]]
    forkserver = int(stats["reaper"].split()[-1])
    return {"host": [os.getpid()], "forkserver": [forkserver], "workers": workers}


def _usage(pid: int) -> tuple[float, float]:
    """Give CPU seconds of all its threads, and how often they were woken."""
    switches = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        line = next(line for line in status.read_text().splitlines() if line.startswith("voluntary_ctxt"))
        switches += int(line.split()[1])
    return time.clock_gettime(process_clock(pid)), switches


def process_clock(pid: int) -> int:
    """Give the id of another process's CPU clock, as `clock_getcpuclockid(3)` would (CPUCLOCK_SCHED is 2)."""
    return (~pid << 3) | 2


def _total(usages: list[tuple[float, float]], index: int) -> float:
    return sum(usage[index] for usage in usages)


def _ready(sup: dspex.Supervisor) -> list[Any]:
    return [row for row in sup.pool("idle").stats()["workers"] if row["phase"] == "ready"]


if __name__ == "__main__":
    main()
