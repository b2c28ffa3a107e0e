"""How soon a worker's death is seen, its call has failed, and a successor serves: `python -m benchmarks deaths`.

Each kill hits the worker of a running call, whose caller waits in a thread. Times are from just before the SIGKILL
to the event `dspex.worker.died`, to the error in the caller's hands, and to `dspex.worker.ready` of the successor. The
workers have answered calls before: the successors of those that answer nothing are started with a back-off.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import dspex
from benchmarks.report import Row, median, percentile, until

ENOUGH_CALLS = 10  # calls that a worker answered before it is killed
GOALS = {"death seen": 10.0, "its call failed": 50.0, "capacity back": 100.0}  # ms, medians, start_method fork
TEMPLATES: dict[str, dict[str, Any]] = {
    "bare": {},
    "with dspy imported": {"imports": ["dspy"]},  # what a dspy pool forks: some 50 MB of pages to share
}


def run(*, quick: bool = False) -> dict[str, list[Row]]:
    logging.getLogger("dspex").setLevel(logging.CRITICAL)
    kills = 20 if quick else 200
    rows = [row for name, settings in TEMPLATES.items() for row in _rows(name, _measure(settings, kills))]
    return {f"A busy worker is killed, {kills} times for each fork server, ms from the SIGKILL": rows}


def _rows(forkserver: str, measured: dict[str, list[float]]) -> list[Row]:
    return [
        {
            "what": what,
            "forkserver": forkserver,
            "median": median(values),
            "p99": percentile(values, 0.99),
            "worst": max(values),
            "goal, median": GOALS[what],
            "goal met": "yes" if median(values) <= GOALS[what] else "NO",
        }
        for what, values in measured.items()
    ]


def _measure(settings: dict[str, Any], kills: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {what: [] for what in GOALS}
    pool = dspex.PoolConfig("deaths", bridge="faults", size=2, concurrency=1, **settings)
    with dspex.Supervisor(pools=[pool]) as sup:
        times = Times(sup)
        until(lambda: len(_ready(sup)) == 2)
        for _ in range(kills):
            for what, milliseconds in _kill_once(sup, times).items():
                found[what].append(milliseconds)
    return found


def _kill_once(sup: dspex.Supervisor, times: Times) -> dict[str, float]:
    while any(row["answered"] < ENOUGH_CALLS for row in _ready(sup)):
        asyncio.run(_work(sup))
    with tempfile.TemporaryDirectory() as folder:
        caller = Caller(sup, Path(folder, "pid"))
        until(caller.has_begun)  # a call that its worker has not read is sent elsewhere (C8)
        victim = int(caller.announcement.read_text())
        times.clear()
        struck = time.time()
        os.kill(victim, signal.SIGKILL)
        caller.thread.join()
    until(lambda: {"dspex.worker.died", "dspex.worker.ready"} <= times.seen.keys() and len(_ready(sup)) == 2)
    return {
        "death seen": (times.seen["dspex.worker.died"] - struck) * 1000,
        "its call failed": (caller.failed_at - struck) * 1000,
        "capacity back": (times.seen["dspex.worker.ready"] - struck) * 1000,
    }


async def _work(sup: dspex.Supervisor) -> None:
    """Let every worker answer something: what they are given lasts long enough that none does it all."""
    await asyncio.gather(*(sup.acall("deaths", "sleep", {"seconds": 0.001}) for _ in range(2 * ENOUGH_CALLS)))


class Caller:
    """A thread that waits in a call until its worker dies; times are `time.time()`'s, as those of events."""

    def __init__(self, sup: dspex.Supervisor, announcement: Path) -> None:
        self.announcement = announcement
        self.failed_at = 0.0
        self._sup = sup
        self.thread = threading.Thread(target=self._wait)
        self.thread.start()

    def has_begun(self) -> bool:
        return self.announcement.exists() and self.announcement.read_text().endswith("\n")

    def _wait(self) -> None:
        sleep = {"path": str(self.announcement), "command": "sleep", "arguments": {"seconds": 60.0}}
        try:
            self._sup.call("deaths", "announced", sleep)
        except dspex.WorkerDied:
            self.failed_at = time.time()


class Times:
    """When each event was last emitted."""

    def __init__(self, sup: dspex.Supervisor) -> None:
        self.seen: dict[str, float] = {}
        sup.on_event(lambda event: self.seen.__setitem__(event.name.value, event.time))

    def clear(self) -> None:
        self.seen.clear()


def _ready(sup: dspex.Supervisor) -> list[Any]:
    return [row for row in sup.pool("deaths").stats()["workers"] if row["phase"] == "ready"]
