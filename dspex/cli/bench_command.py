"""`dspex bench`: measure latency and throughput of the call path, in this process, with the faults bridge.

It measures the pool, not a language model: `echo` does nothing in the worker. The repository's `benchmarks/` compare
with other pools.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from typing import Any

import click

from ..config import PoolConfig
from ..pools.supervisor import Supervisor
from .exit_codes import OK
from .option_types import NAMES, POSITIVE, SPAN
from .printing import print_json, print_line
from .shared_options import command

POOL = "bench"
IN_FLIGHT = 64


@command("bench")
@click.option("--seconds", type=SPAN, default=2.0, metavar="S", help="For each figure (default: 2).")
@click.option("--size", type=POSITIVE, default=2, metavar="N", help="Workers (default: 2).")
@click.option("--chaos", is_flag=True, help="Inject faults instead, beside other pools: minutes, not seconds.")
@click.option("--quick", is_flag=True, help="Each fault once.")
@click.option("--repeats", type=POSITIVE, metavar="N", help="Trials of each fault (default: 5).")
@click.option("--cases", type=NAMES, default=(), metavar="A,B", help="Only these faults.")
@click.option("--peers", type=NAMES, default=(), metavar="A,B", help="Only these pools; by default those installed.")
def bench(
    seconds: float,
    size: int,
    chaos: bool,
    quick: bool,
    repeats: int | None,
    cases: tuple[str, ...],
    peers: tuple[str, ...],
    as_json: bool,
) -> int:
    """Measure and print: medians over `--seconds` each."""
    if chaos:
        from .chaos_run import run_chaos

        return run_chaos(quick=quick, repeats=repeats, cases=cases, peers=peers, as_json=as_json)
    pool = PoolConfig(POOL, bridge="faults", size=size, concurrency=32)
    with Supervisor(pools=[pool]) as supervisor:
        began = time.monotonic()
        supervisor.wait_ready()
        figures = {"first_worker_ready_ms": (time.monotonic() - began) * 1000}
        figures |= _latency(lambda: supervisor.call(POOL, "echo", {"n": 1}), seconds)
        figures |= asyncio.run(_throughput(supervisor, seconds))
    _print(figures, as_json=as_json)
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
