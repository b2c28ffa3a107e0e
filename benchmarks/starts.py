"""How long four dspy workers take to be ready, by fork and by exec, and what memory each costs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import dspex
from benchmarks.report import Row, median, spread, until

WORKERS = 4


def run(*, quick: bool = False) -> dict[str, list[Row]]:
    rounds = 1 if quick else 3
    measured: dict[str, list[dict[str, float]]] = {"fork": [], "exec": []}
    for _ in range(rounds):
        for method, found in measured.items():
            found.append(_start(method))
    rows: list[Row] = [
        {
            "start method": method,
            "fork server warm, s": median([m["warm"] for m in found]),
            "then 4 workers ready, s": median([m["ready"] for m in found]),
            "PSS MiB each": median([m["pss"] for m in found]),
            "RSS MiB each": median([m["rss"] for m in found]),
            "replaced after SIGKILL, s": median([m["replaced"] for m in found]),
            "spread": f"±{spread([m['warm'] + m['ready'] for m in found]) * 50:.0f} %",
        }
        for method, found in measured.items()
    ]
    return {f"Start of {WORKERS} dspy workers; medians of {rounds} rounds": rows}


def _start(method: Any) -> dict[str, float]:
    warmed: list[float] = []
    began = time.monotonic()
    sup = dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=WORKERS, start_method=method)])
    sup.on_event(lambda event: warmed.append(time.monotonic()) if event.name == "dspex.forkserver.warmed" else None)
    with sup:
        until(lambda: len(_ready(sup)) == WORKERS)
        ready = time.monotonic()
        pids = [row["pid"] for row in _ready(sup)]
        pss = [_smaps(pid, "Pss") for pid in pids]
        rss = [_smaps(pid, "Rss") for pid in pids]
        replaced = _kill_one(sup)
    return {
        "warm": warmed[0] - began,
        "ready": ready - warmed[0],
        "pss": median(pss),
        "rss": median(rss),
        "replaced": replaced,
    }


def _kill_one(sup: dspex.Supervisor) -> float:
    import os
    import signal

    before = {row["pid"] for row in _ready(sup)}
    os.kill(min(before), signal.SIGKILL)
    began = time.monotonic()
    until(lambda: len({row["pid"] for row in _ready(sup)} - before) == 1)
    return time.monotonic() - began


def _ready(sup: dspex.Supervisor) -> list[Any]:
    return [row for row in sup.pool("dspy").stats()["workers"] if row["phase"] == "ready"]


def _smaps(pid: int, key: str) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    return 0.0
