"""One side of the predict benchmark, in a fresh process.

`python -m benchmarks.predict_side SIDE WHAT URL SPAWNED CALLS MANY IN_FLIGHT`, where WHAT is "first" (the time from the
moment SPAWNED on the monotonic clock to the first prediction), "rates" or "latency". It prints one JSON object.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Figures = dict[str, float]


@dataclass
class Side:
    """How a side predicts: one call, and many of them, `in_flight` at a time."""

    program: Any
    uses_threads: bool
    close: Callable[[], object]

    def one(self, number: int) -> Any:
        return self.program(question=f"what is {number}?")

    async def aone(self, number: int) -> Any:
        return await self.program.acall(question=f"what is {number}?")

    def many(self, numbers: Iterable[int], in_flight: int) -> list[float]:
        """The latency of each, in seconds, in the order in which they ended."""
        if self.uses_threads:
            from concurrent.futures import ThreadPoolExecutor

            with ThreadPoolExecutor(in_flight) as threads:
                return list(threads.map(self._timed, numbers))
        import asyncio

        return asyncio.run(self._gathered(numbers, in_flight))

    def _timed(self, number: int) -> float:
        start = time.perf_counter()
        self.one(number)
        return time.perf_counter() - start

    async def _gathered(self, numbers: Iterable[int], in_flight: int) -> list[float]:
        import asyncio  # here, so that "first" measures what a side itself loads

        todo, took = iter(numbers), []

        async def caller() -> None:
            for number in todo:
                start = time.perf_counter()
                await self.aone(number)
                took.append(time.perf_counter() - start)

        await asyncio.gather(*(caller() for _ in range(in_flight)))
        return took


def first(side: Side, spawned: float) -> Figures:
    """From the process's start to its first prediction, on the wall and on the CPU, and its memory then."""
    side.one(0)
    wall, cpu = time.monotonic() - spawned, time.process_time()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {"wall_s": wall, "cpu_s": cpu, "rss_mib": pages * os.sysconf("SC_PAGE_SIZE") / 2**20}


def rates(side: Side, calls: int, many: int, in_flight: int) -> Figures:
    """One at a time, then `in_flight` at a time; CPU is this process's own, the kernel's part in it."""
    for number in range(20):
        side.one(number)
    cpu = _cpu()
    took = sorted(side._timed(number) for number in range(20, 20 + calls))
    alone_cpu = (_cpu() - cpu) / calls
    side.many(range(1_000, 1_000 + 4 * in_flight), in_flight)
    cpu, start = _cpu(), time.perf_counter()
    side.many(range(10_000, 10_000 + many), in_flight)
    seconds = time.perf_counter() - start
    return {
        "p50_us": took[len(took) // 2] * 1e6,
        "alone_cpu_us": alone_cpu * 1e6,
        "per_s": many / seconds,
        "cpu_us": (_cpu() - cpu) / many * 1e6,
    }


def latency(side: Side, many: int, in_flight: int) -> Figures:
    """The distribution of the latencies with `in_flight` at a time, after a round that opens the connections."""
    from benchmarks.report import percentile

    side.many(range(in_flight), in_flight)
    cpu, start = _cpu(), time.perf_counter()
    took = side.many(range(10_000, 10_000 + many), in_flight)
    seconds = time.perf_counter() - start
    shares = {f"p{share}_ms": percentile(took, share / 100) * 1e3 for share in (1, 10, 50, 90, 99)}
    return {**shares, "max_ms": max(took) * 1e3, "per_s": many / seconds, "cpu_us": (_cpu() - cpu) / many * 1e6}


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _native(base: str, uses_threads: bool = False) -> Side:
    import dspex

    program = dspex.predictor("predict", "question -> answer", lm=_lm(base), implementation="native")
    return Side(program, uses_threads, lambda: None)


def _native_threads(base: str) -> Side:
    return _native(base, uses_threads=True)


def _in_worker(base: str) -> Side:
    import dspex

    sup = dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=2)]).start()
    program = dspex.predictor("predict", "question -> answer", lm=_lm(base), implementation="python", supervisor=sup)
    return Side(program, False, sup.stop)


def _lm(base: str) -> Any:
    import dspex

    return dspex.LM("openai/any", api_base=base, api_key="k", cache=False)


def _dspy(base: str, uses_threads: bool = False) -> Side:
    import dspy

    lm = dspy.LM("openai/any", api_base=base, api_key="k", cache=False, engine="lm15")
    dspy.configure(lm=lm, disable_history=True, trace=None)
    return Side(dspy.Predict("question -> answer"), uses_threads, lambda: os._exit(0))


def _dspy_threads(base: str) -> Side:
    return _dspy(base, uses_threads=True)


SIDES: dict[str, Callable[[str], Side]] = {
    "dspex native": _native,
    "dspex native, threads": _native_threads,
    "dspex in a worker": _in_worker,
    "dspy threads": _dspy_threads,
    "dspy acall": _dspy,
}


def main() -> None:
    name, what, base, spawned, calls, many, in_flight = sys.argv[1:8]
    side = SIDES[name](base)
    if what == "first":
        found = first(side, float(spawned))
    elif what == "rates":
        found = rates(side, int(calls), int(many), int(in_flight))
    else:
        found = latency(side, int(many), int(in_flight))
    print(json.dumps(found), flush=True)
    side.close()


if __name__ == "__main__":
    main()
