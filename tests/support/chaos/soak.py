"""The soak: everything a pool offers and everything that can happen to it, for many minutes, while growth is measured.

    python -m tests.support.chaos.soak --minutes 20

Two pools serve echoes, effects, errors, payloads, nested tools, streams both ways, cancels, deadlines and sessions,
while workers are killed, crash, hang, stop, leak, flood and speak garbage, and are recycled by calls, age and memory,
resized and reloaded. Each second a sample is taken. At the end every id must have ended in exactly one result or typed
error, nothing may have run more often than it may, the process must hold what it held before, and nothing may grow.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import json
import logging
import os
import random
import re
import sys
import tempfile
import threading
import time
from array import array
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

from dspex.config import PoolConfig
from dspex.events import Event, Name
from dspex.pools.state import poison
from dspex.pools.supervisor import Supervisor
from dspex.pools.tool_threads import THREADS
from dspex_worker.memory.procfs import rss_of
from tests.support.chaos.faults import Injuries
from tests.support.chaos.outcomes import Books
from tests.support.chaos.resources import Holdings, children, descriptor_count, descriptors, pss_of, zombies
from tests.support.chaos.slopes import FEWEST, slope
from tests.support.chaos.traffic import MANY, SINGLE, Traffic

_trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)  # not every libc has it
MIB = 1024 * 1024
DAY = 86_400.0
MOST_PER_S = 4_000  # ids that the books have room for, per second
CALLERS = {"callers": 40, "durable": 8, "stateful": 4, "threads": 3}
COUNTED = (Name.WORKER_RECYCLING, Name.WORKER_RETIRING, Name.WORKER_STOPPED, Name.WORKER_DIED, Name.FORKSERVER_LOST)
SHORT = 600.0  # seconds: before, what is made once and kept looks like growth
REMEMBERED = 60.0  # seconds that suspects are known, not ten minutes: else they grow in number for so long
BLOCKING = 16  # threads for what blocks: callers, recycling
# What may be added in a day: quantity -> (unit, its size, the limit in units)
LIMITS = {
    "rss of the host": ("MiB", MIB, 20.0),
    "blocks of the host": ("thousand", 1000, 100.0),  # Python's own allocations, which malloc's holes do not blur
    "rss of the fork servers": ("MiB", MIB, 20.0),
    "pss of the workers": ("MiB", MIB, None),  # they leak on purpose and are recycled: shown, not judged
    "descriptors": ("", 1, 1.0),
    "threads": ("", 1, 1.0),
    "children": ("", 1, 1.0),
    "zombies": ("", 1, 1.0),
}


class Soak:
    """One run; afterwards `faults` lists what was wrong."""

    def __init__(self, seconds: float, seed: int, folder: Path, *, warm_up: float) -> None:
        self.seconds = seconds
        self.seed = seed
        self.faults: list[str] = []
        self.books = Books(int((seconds + 60) * MOST_PER_S), folder / "effects")
        self.injuries: Injuries
        self.times = array("d")  # arrays, whose items are no objects: what samples must not grow by itself
        self.samples = {name: array("d") for name in LIMITS}
        self.quiet: tuple[Holdings, Holdings]
        self.turnover: Counter[str] = Counter()  # what became of workers and fork servers, by event and reason
        self._warm_up = warm_up

    def execute(self) -> None:
        """Run it, with a supervisor of its own."""
        outside = Holdings.now()
        with patch.object(poison, "QUARANTINE", REMEMBERED), Supervisor(pools=_pools()) as sup:
            sup.wait_ready()
            sup.on_event(self._count)
            asyncio.run(self._soak(sup))
            sup.flush_events(10.0)
        self._compare("after stop()", outside, _settled(lambda: Holdings.now(), outside))
        self.faults += self.books.faults()

    async def _soak(self, sup: Supervisor) -> None:
        traffic = Traffic(sup, self.books, self.seed)
        await self._make_what_is_made_once(sup)
        _wait_until_quiet(sup)
        before = Holdings.now()
        self.injuries = Injuries(sup, traffic, self.seed)
        over = threading.Event()
        sampler = threading.Thread(target=self._sample, args=(sup, over))
        sampler.start()
        injuring = asyncio.create_task(self.injuries.run())
        calling = asyncio.create_task(traffic.run(**CALLERS))
        await asyncio.sleep(self.seconds)
        over.set()
        injuring.cancel()
        await injuring
        traffic.stop()
        await calling
        await asyncio.to_thread(sampler.join)
        await asyncio.to_thread(_wait_until_quiet, sup)
        self.quiet = before, _settled(lambda: Holdings.now(), before)
        self._compare("once quiet", *self.quiet)

    async def _make_what_is_made_once(self, sup: Supervisor) -> None:
        """Threads and buffers that the first calls make, so that they do not count as growth."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(BLOCKING))
        barrier = threading.Barrier(BLOCKING)
        await asyncio.gather(*[loop.run_in_executor(None, barrier.wait) for _ in range(BLOCKING)])
        sizes = {pool.name: pool.size for pool in _pools()}
        sup.pool(MANY).resize(6)
        for pool, callers in ((MANY, THREADS), (SINGLE, sizes[SINGLE])):
            in_tools = threading.Barrier(callers)
            sup.register("meet", lambda request, barrier=in_tools: barrier.wait(60.0))
            await asyncio.gather(*[sup.acall(pool, "ask", {"name": "meet", "arguments": {}}) for _ in range(callers)])
        sup.pool(MANY).resize(sizes[MANY])
        numbers = {"name": "numbers", "arguments": {"n": 1}}
        await asyncio.gather(*[sup.acall(pool, "ask_stream", numbers) for pool in sizes for _ in range(500)])

    def _count(self, event: Event) -> None:
        if event.name in COUNTED:
            reason = str(event.facts.get("reason", "")).partition(":")[0]  # "unresponsive:17" names a call
            self.turnover[f"{event.name.removeprefix('dspex.')} {reason}".strip()] += 1

    def _sample(self, sup: Supervisor, over: threading.Event) -> None:
        began = time.monotonic()
        while not over.wait(1.0):
            now = time.monotonic() - began
            if now < self._warm_up:
                continue
            self.times.append(now)
            gc.collect()  # what is sampled is what is held, not what waits for a collection,
            _trim(0)  # nor what malloc keeps of a large payload for the next one
            for name, value in _look(sup).items():
                self.samples[name].append(value)

    def _compare(self, when: str, before: Holdings, after: Holdings) -> None:
        for name in ("descriptors", "threads", "children", "zombies"):
            was, now = getattr(before, name), getattr(after, name)
            if now > was:
                self.faults.append(f"{name} {when}: {was} before, {now} now; {_what_is_held()}")


def _look(sup: Supervisor) -> dict[str, float]:
    stats = sup.stats().values()
    workers = [row["pid"] for pool in stats for row in pool["workers"] if row["pid"]]
    forkservers = [int(pool["reaper"].split()[-1]) for pool in stats if pool["reaper"].startswith("fork server")]
    return {
        "rss of the host": rss_of(os.getpid()),
        "blocks of the host": sys.getallocatedblocks(),
        "rss of the fork servers": sum(map(rss_of, forkservers)) / max(1, len(forkservers)),
        "pss of the workers": sum(map(pss_of, workers)) / max(1, len(workers)),
        "descriptors": descriptor_count(),
        "threads": threading.active_count(),
        "children": len(children(os.getpid())),
        "zombies": zombies(),
    }


def _pools() -> list[PoolConfig]:
    return [
        PoolConfig(
            MANY,
            bridge="faults",
            size=3,
            concurrency=8,
            cancel_grace=0.5,
            stop_grace=5.0,
            recycle_after_calls=3000,
            recycle_after_age=45.0,
            recycle_after_memory=80 * MIB,
            session_drain=3.0,
            restart_budget=(50, 10.0),
        ),
        PoolConfig(
            SINGLE,
            bridge="faults",
            size=2,
            concurrency=1,
            cancel_grace=0.5,
            stop_grace=5.0,
            memory_cap=300 * MIB,
            recycle_after_calls=500,
            recycle_after_age=30.0,
            recycle_after_memory=80 * MIB,
            session_drain=3.0,
            restart_budget=(50, 10.0),
        ),
    ]


def _wait_until_quiet(sup: Supervisor, within: float = 60.0) -> None:
    """Until nothing runs or waits, and each pool has exactly its workers, all ready."""
    deadline = time.monotonic() + within
    while not all(_is_quiet(pool) for pool in sup.stats().values()):
        assert time.monotonic() < deadline, f"the pools do not come to rest: {sup.stats()}"
        threading.Event().wait(0.02)


def _is_quiet(pool: Any) -> bool:
    rows = pool["workers"]
    is_whole = len(rows) == pool["size"] and all(row["phase"] == "ready" and row["pid"] for row in rows)
    is_idle = not pool["queued"] and not pool["in_flight"] and not pool["sessions"]
    return is_whole and is_idle and pool["reaper"].startswith("fork server")


def _settled(look: Any, before: Holdings, within: float = 10.0) -> Holdings:
    """What is held once the last worker's end has been dealt with."""
    deadline = time.monotonic() + within
    while True:
        now: Holdings = look()
        names = ("descriptors", "threads", "children", "zombies")
        if all(getattr(now, name) <= getattr(before, name) for name in names) or time.monotonic() > deadline:
            return now
        threading.Event().wait(0.05)


def _what_is_held() -> str:
    """Threads by name and descriptors by kind, for whoever has to find what was left behind."""
    threads = Counter(thread.name.rstrip("0123456789-_") for thread in threading.enumerate())
    kinds = Counter(re.sub(r"\d+", "n", kind) for kind in descriptors())
    return f"threads {dict(threads)}; descriptors {dict(kinds)}"


# -- the report --------------------------------------------------------------------------------------------------


def report(soak: Soak) -> tuple[list[str], dict[str, Any], bool]:
    """Give (the lines to print, the same as data, whether all is well)."""
    total = soak.books.total()
    ends: dict[str, int] = {}
    for (_, end), count in soak.books.counts.items():
        ends[end] = ends.get(end, 0) + count
    lines = [f"seed {soak.seed}: {total:,} ids in {soak.seconds:.0f} s ({total / soak.seconds:,.0f}/s)"]
    lines.append("ends: " + "; ".join(f"{end} {n:,}" for end, n in sorted(ends.items(), key=lambda pair: -pair[1])))
    lines.append(f"effects: {soak.books.executions():,} executions in the file")
    injured = soak.injuries.counts.most_common()
    lines.append(f"injuries: {sum(soak.injuries.counts.values())}: " + "; ".join(f"{what} {n}" for what, n in injured))
    lines.append("turnover: " + "; ".join(f"{what} {n}" for what, n in sorted(soak.turnover.items())))
    before, after = (asdict(holdings) for holdings in soak.quiet)
    lines += [f"quiet before -> after: {name} {_size(before[name])} -> {_size(after[name])}" for name in before]
    rows = {name: _growth(soak, name) for name in LIMITS if len(soak.times) >= FEWEST}
    lines += ["", f"{'each second':22} {'mean':>10} {'per hour':>12} {'95 % bound':>12} {'per day':>12}   verdict"]
    for name, row in rows.items():
        numbers = f"{row['mean']:10.2f} {row['per_hour']:+12.4f} {row['bound_per_hour']:12.4f} {row['per_day']:+12.2f}"
        lines.append(f"{name:22} {numbers}   {row['verdict']}")
    is_well = not soak.faults and not any(row["verdict"].startswith("GROWS") for row in rows.values())
    lines += ["", *(f"WRONG: {fault}" for fault in soak.faults), "verdict: " + ("all well" if is_well else "FAILED")]
    data = {
        "seed": soak.seed,
        "seconds": soak.seconds,
        "ids": total,
        "ends": ends,
        "by_kind": {f"{kind}: {end}": n for (kind, end), n in sorted(soak.books.counts.items())},
        "injuries": dict(soak.injuries.counts),
        "turnover": dict(soak.turnover),
        "quiet": {"before": before, "after": after},
        "growth": rows,
        "faults": soak.faults,
        "samples": {"seconds": list(soak.times), **{name: list(values) for name, values in soak.samples.items()}},
    }
    return lines, data, is_well


def _growth(soak: Soak, name: str) -> dict[str, Any]:
    unit, size, limit = LIMITS[name]
    found = slope(soak.times, [value / size for value in soak.samples[name]])
    if limit is None:
        verdict = "shown only"
    elif soak.seconds < SHORT:
        verdict = f"not judged under {SHORT / 60:.0f} min"
    elif found.grows_faster_than(limit / DAY):
        verdict = f"GROWS by more than {limit:g} {unit} a day".replace("  ", " ")
    else:
        verdict = "no growth" if abs(found.per_s) <= found.bound else f"under {limit:g} {unit} a day or not proven"
    return {
        "unit": unit,
        "mean": found.mean,
        "per_hour": found.per_s * 3600,
        "bound_per_hour": found.bound * 3600,
        "per_day": found.per_s * DAY,
        "verdict": verdict,
    }


def _size(value: int) -> str:
    return f"{value / MIB:.1f} MiB" if value > 10_000 else str(value)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.support.chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--warm-up", type=float, help="seconds before the first sample; a tenth of the time if absent")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--json", type=Path, help="where to write the report with all samples")
    options = parser.parse_args(arguments)
    seconds = options.minutes * 60
    logging.getLogger("dspex").setLevel(logging.CRITICAL)  # thousands of deaths, all of them meant
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        warm_up = seconds / 10 if options.warm_up is None else options.warm_up
        soak = Soak(seconds, options.seed, Path(folder), warm_up=warm_up)
        soak.execute()
        lines, data, is_well = report(soak)
    print("\n".join(lines))
    if options.json is not None:
        options.json.write_text(json.dumps(data, indent=1))
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
