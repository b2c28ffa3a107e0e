"""`dspex bench`: measure latency and throughput of the call path, in this process, with the faults bridge.

It measures the pool, not a language model: `echo` does nothing in the worker. The repository's `benchmarks/` compare
with other pools.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable
from typing import Any

from ..config import PoolConfig
from ..pools.supervisor import Supervisor
from .exit_codes import OK
from .target import print_json, print_line

POOL = "bench"
IN_FLIGHT = 64


def bench(options: argparse.Namespace) -> int:
    """Measure and print: medians over `--seconds` each."""
    pool = PoolConfig(POOL, bridge="faults", size=max(1, options.size), concurrency=32)
    with Supervisor(pools=[pool]) as supervisor:
        began = time.monotonic()
        supervisor.wait_ready()
        figures = {"first_worker_ready_ms": (time.monotonic() - began) * 1000}
        figures |= _latency(lambda: supervisor.call(POOL, "echo", {"n": 1}), options.seconds)
        figures |= asyncio.run(_throughput(supervisor, options.seconds))
    _print(figures, as_json=options.json)
    return OK


def _latency(call: Callable[[], Any], seconds: float) -> dict[str, float]:
    """Measure with one call in flight."""
    for _ in range(50):
        call()
    times: list[float] = []
    until = time.monotonic() + seconds
    while (began := time.perf_counter()) and time.monotonic() < until:
        call()
        times.append(time.perf_counter() - began)
    cuts = statistics.quantiles(times, n=100) if len(times) > 1 else [times[0]] * 99
    return {"call_p50_us": cuts[49] * 1e6, "call_p99_us": cuts[98] * 1e6, "call_count": float(len(times))}


async def _throughput(supervisor: Supervisor, seconds: float) -> dict[str, float]:
    """Measure with many calls in flight, from one event loop."""
    until = time.monotonic() + seconds
    done = 0

    async def one_after_another() -> None:
        nonlocal done
        while time.monotonic() < until:
            await supervisor.acall(POOL, "echo", {"n": 1})
            done += 1

    began = time.monotonic()
    await asyncio.gather(*(one_after_another() for _ in range(IN_FLIGHT)))
    return {f"calls_per_s_at_{IN_FLIGHT}": done / (time.monotonic() - began)}


def _print(figures: dict[str, float], *, as_json: bool) -> None:
    if as_json:
        print_json({name: round(value, 1) for name, value in figures.items()})
        return
    for name, value in figures.items():
        print_line(f"{name:24} {value:12,.1f}")
