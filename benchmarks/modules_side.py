"""One side of the benchmark of modules, in a fresh process.

`python -m benchmarks.modules_side SIDE CASE URL CALLS MANY`

CPU is that of this process and all below it: host and workers, the kernel's part in it. It prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IN_FLIGHT = 32
CASES: dict[str, tuple[str, dict[str, int]]] = {
    "1 predictor": ("Chain", {"predictors": 1}),
    "5 predictors": ("Chain", {"predictors": 5}),
    "holds 100 MB": ("Holding", {}),
}
TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Called:
    """A program of one side: how it is called once, and often at the same time."""

    program: Any
    is_awaited: bool
    close: Callable[[], object]

    def one(self, number: int) -> None:
        self.program(question=f"what is {number}?")

    def many(self, count: int) -> None:
        if self.is_awaited:
            from benchmarks.in_flight import gathered

            asyncio.run(gathered(self.program, count, IN_FLIGHT))
            return
        with ThreadPoolExecutor(IN_FLIGHT) as threads:
            list(threads.map(self.one, range(count)))


def figures(called: Called, calls: int, many: int) -> dict[str, float]:
    """One at a time, then 32 at a time."""
    for number in range(20):
        called.one(number)
    cpu, took = cpu_seconds(), []
    for number in range(calls):
        start = time.perf_counter()
        called.one(number)
        took.append(time.perf_counter() - start)
    alone = (cpu_seconds() - cpu) / calls
    called.many(2 * IN_FLIGHT)
    cpu, start = cpu_seconds(), time.perf_counter()
    called.many(many)
    seconds = time.perf_counter() - start
    return {
        "p50_us": sorted(took)[len(took) // 2] * 1e6,
        "cpu_us": alone * 1e6,
        "per_s": many / seconds,
        "busy_cpu_us": (cpu_seconds() - cpu) / many * 1e6,
    }


def cpu_seconds() -> float:
    """What this process and those below it have used; they must live on until the next look."""
    below, found = {os.getpid()}, 0.0
    stats = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            stats[int(entry.name)] = (int(fields[1]), (int(fields[11]) + int(fields[12])) / TICK)
    grown = True
    while grown:
        more = {pid for pid, (parent, _) in stats.items() if parent in below} - below
        below |= more
        grown = bool(more)
    for pid in below:
        found += stats[pid][1]
    return found


def _dspex(case: str, base: str) -> Called:
    import dspex

    name, options = CASES[case]
    supervisor = dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=2, concurrency=IN_FLIGHT // 2)]).start()
    lm = dspex.LM("openai/any", api_base=base, api_key="k", cache=False)
    program = dspex.module(f"benchmarks.own_programs:{name}", supervisor=supervisor, lm=lm, **options)
    return Called(program, True, supervisor.stop)


def _dspy(case: str, base: str, is_awaited: bool = False) -> Called:
    import dspy

    from benchmarks import own_programs

    name, options = CASES[case]
    lm = dspy.LM("openai/any", api_base=base, api_key="k", cache=False, engine="lm15")
    dspy.configure(lm=lm, disable_history=True, trace=None)
    cls = getattr(own_programs, f"Awaited{name}" if is_awaited else name)
    return Called(cls(**options), is_awaited, lambda: os._exit(0))


SIDES: dict[str, Callable[[str, str], Called]] = {
    "dspex.module": _dspex,
    "dspy threads": _dspy,
    "dspy acall": lambda case, base: _dspy(case, base, is_awaited=True),
}


def main() -> None:
    side, case, base, calls, many = sys.argv[1:6]
    called = SIDES[side](case, base)
    print(json.dumps(figures(called, int(calls), int(many))), flush=True)
    called.close()


if __name__ == "__main__":
    main()
