"""What queued calls cost: memory, being cancelled, and their order: `python -m benchmarks queue`.

A process of its own for each size of arguments, so that its memory is its own. One worker, one call at a time, is
held; 10,000 calls queue up behind it from one event loop, each in an asyncio task. Nine in ten are cancelled, the rest
served.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import dspex
from benchmarks.report import Row, median

CALLS = 10_000
STAYING = 10  # of which every tenth is served
SIZES = (20, 1000)  # bytes of arguments
GOAL_BYTES, GOAL_MS = 2048, 100.0


def run(*, quick: bool = False) -> dict[str, list[Row]]:
    rounds = 1 if quick else 5
    memory, cancels = [], []
    for size in SIZES:
        traced = _measure(size, is_traced=True)
        plain = [_measure(size, is_traced=False) for _ in range(rounds)]
        memory += _memory_rows(size, traced, plain)
        cancels.append(_cancel_row(size, plain))
    return {
        f"{CALLS:,} queued calls: bytes of each beyond its arguments": memory,
        f"9 of 10 of them cancelled, the others served; medians of {rounds} rounds": cancels,
    }


def _memory_rows(size: int, traced: dict[str, Any], plain: list[dict[str, Any]]) -> list[Row]:
    own, whole = traced["pool_bytes"], traced["all_bytes"]
    rows: list[tuple[str, float, float | None]] = [
        ("the pool's (allocated in dspex)", own, GOAL_BYTES),
        ("all: with the task, its future and context", whole, GOAL_BYTES),
        ("growth of the process's RSS", median([found["rss_bytes"] for found in plain]), None),
    ]
    return [
        {"what": what, "arguments, bytes": size, "bytes each": each, "goal": goal, "goal met": _met(each, goal)}
        for what, each, goal in rows
    ]


def _cancel_row(size: int, plain: list[dict[str, Any]]) -> Row:
    took = median([found["cancel_ms"] for found in plain])
    return {
        "arguments, bytes": size,
        "cancel 9,000, ms": took,
        "worst": max(found["cancel_ms"] for found in plain),
        "as many bare tasks, ms": median([found["bare_ms"] for found in plain]),
        "goal": GOAL_MS,
        "goal met": _met(took, GOAL_MS),
        "served": min(found["served"] for found in plain),
        "out of order": max(found["misplaced"] for found in plain),
        "cancelled that ran": max(found["ran_anyway"] for found in plain),
        "submit, µs each": median([found["submit_us"] for found in plain]),
    }


def _met(value: float, goal: float | None) -> str | None:
    return None if goal is None else "yes" if value <= goal else "NO"


def _measure(size: int, *, is_traced: bool) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.queued", str(size), "traced" if is_traced else "plain"]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


# -- in the process of its own --


def main() -> None:
    size, is_traced = int(sys.argv[1]), sys.argv[2] == "traced"
    pool = dspex.PoolConfig("queue", bridge="faults", size=1, concurrency=1, queue_limit=2 * CALLS)
    with tempfile.TemporaryDirectory() as folder, dspex.Supervisor(pools=[pool]) as sup:
        sup.wait_ready()
        queue = Queue(sup.pool("queue"), Path(folder), size)
        asyncio.run(queue.fill_and_empty(50, is_traced=False))  # what is made once is made before anything is counted
        found = asyncio.run(queue.fill_and_empty(CALLS, is_traced=is_traced))
        print(json.dumps(found | {"bare_ms": asyncio.run(_cancel_bare(CALLS))}))


class Queue:
    """Fills a pool's queue, cancels nine in ten, and looks at what was served."""

    def __init__(self, pool: Any, folder: Path, size: int) -> None:
        self._pool = pool
        self._folder = folder
        self._padding = "x" * size

    async def fill_and_empty(self, calls: int, *, is_traced: bool) -> dict[str, Any]:
        gate, path = self._folder / f"gate-{calls}", self._folder / f"ran-{calls}"
        holder = asyncio.create_task(
            self._pool.acall("announced", {"path": str(self._folder / "holder"), "gate": str(gate)})
        )
        await _until(lambda: self._pool.stats()["in_flight"] == 1)
        arguments = [self._arguments(path, n) for n in range(calls)]  # beyond the arguments: they are the caller's
        before = Memory.now(is_traced=is_traced)
        began = time.perf_counter()
        tasks = [asyncio.create_task(self._pool.acall("effect", given)) for given in arguments]
        await _until(lambda: self._pool.stats()["queued"] == calls)
        submitted = time.perf_counter() - began
        after = Memory.now(is_traced=is_traced)
        began = time.perf_counter()
        going = [task for n, task in enumerate(tasks) if n % STAYING]
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)
        cancelled = time.perf_counter() - began
        gate.touch()
        await asyncio.gather(holder, *(task for n, task in enumerate(tasks) if not n % STAYING))
        ran = [int(line) for line in path.read_text().split()]
        frame = _size_of(arguments[0])
        return {
            "all_bytes": (after.allocated - before.allocated) / calls - frame,
            "pool_bytes": (after.pool - before.pool) / calls - frame,
            "rss_bytes": (after.rss - before.rss) / calls - frame,
            "submit_us": submitted / calls * 1e6,
            "cancel_ms": cancelled * 1000,
            "served": len(ran),
            "misplaced": sum(later < earlier for earlier, later in pairwise(ran)),
            "ran_anyway": sum(bool(n % STAYING) for n in ran),
        }

    def _arguments(self, path: Path, n: int) -> dict[str, Any]:
        return {"path": str(path), "token": f"{n:06}", "padding": self._padding}


async def _cancel_bare(calls: int) -> float:
    """Give the milliseconds that asyncio itself takes to cancel as many tasks that wait for a future each."""

    async def wait(future: asyncio.Future[None]) -> None:
        await future

    tasks = [asyncio.create_task(wait(asyncio.get_running_loop().create_future())) for _ in range(calls)]
    await asyncio.sleep(0)
    going = [task for n, task in enumerate(tasks) if n % STAYING]
    began = time.perf_counter()
    for task in going:
        task.cancel()
    await asyncio.gather(*going, return_exceptions=True)
    took = time.perf_counter() - began
    for task in tasks:
        task.cancel()
    return took * 1000


class Memory:
    """What is allocated, in all and by code of dspex, and what is resident; bytes."""

    def __init__(self, allocated: int, pool: int, rss: int) -> None:
        self.allocated = allocated
        self.pool = pool
        self.rss = rss

    @classmethod
    def now(cls, *, is_traced: bool) -> Memory:
        gc.collect()
        allocated = pool = 0
        if is_traced:
            if not tracemalloc.is_tracing():
                tracemalloc.start()
            taken = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(False, tracemalloc.__file__)])
            own = tracemalloc.Filter(True, str(Path(dspex.__file__).parent / "*"))
            wire = tracemalloc.Filter(True, "*/dspex_worker/*")
            allocated = sum(trace.size for trace in taken.traces)
            pool = sum(trace.size for trace in taken.filter_traces([own, wire]).traces)
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return cls(allocated, pool, resident)


def _size_of(arguments: dict[str, Any]) -> int:
    from dspex_worker.wire import encode

    return len(encode(arguments))


async def _until(is_so: Any) -> None:
    while not is_so():  # noqa: ASYNC110  the pool tells nobody when a call is queued
        await asyncio.sleep(0.001)


if __name__ == "__main__":
    main()
