"""Native predict beside `dspy.Predict`: rates, latencies under load, the first prediction, and each step by itself."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.endpoint import Endpoint, ceiling
from benchmarks.report import Row, median, spread

SIDES = ("dspex native", "dspex native, threads", "dspex in a worker", "dspy threads", "dspy acall")
SLOW_SIDES = ("dspex native", "dspy threads", "dspy acall")
FIRST_SIDES = ("dspex native", "dspy threads")
IN_FLIGHT = 64
SLOW_IN_FLIGHT = 500
DELAY_S = 0.05
WORK = {
    "dspex native": 8,
    "dspex native, threads": 8,
}  # how much more a fast side does, to be timed as well as a slow one

Measured = dict[str, dict[str, list[float]]]


def run(*, quick: bool = False) -> dict[str, list[Row]]:
    """Rounds go round all sides; each is a process of its own with the same endpoint."""
    rounds, calls, many = (2, 50, 200) if quick else (5, 200, 1_000)
    tables: dict[str, list[Row]] = {}
    with Endpoint() as base:
        most = ceiling(base, requests=5_000 if quick else 20_000, in_flight=IN_FLIGHT)
        rates = _rounds(rounds, SIDES, "rates", base, calls, many, IN_FLIGHT)
        tables[
            f"Predictions on one endpoint without latency, which answers {most:,.0f} requests/s at most; "
            f"medians of {rounds} rounds"
        ] = _rate_rows(rates)
        starts = 3 if quick else 10
        first = _rounds(starts, FIRST_SIDES, "first", base)
        tables[f"From the start of the interpreter to the first prediction; medians of {starts}"] = _first_rows(first)
    with Endpoint(DELAY_S) as base:
        rounds = 1 if quick else 3
        slow = _rounds(rounds, SLOW_SIDES, "latency", base, 0, 500 if quick else 1_500, SLOW_IN_FLIGHT)
        tables[
            f"An endpoint that takes {DELAY_S * 1e3:.0f} ms, {SLOW_IN_FLIGHT} in flight; medians of {rounds} rounds"
        ] = _latency_rows(slow)
    tables["Each step by itself: CPU µs, the least of 7"] = _output("benchmarks.predict_steps", "1" if quick else "7")
    return tables


def _rounds(
    rounds: int, sides: Sequence[str], what: str, base: str, calls: int = 0, many: int = 0, in_flight: int = 0
) -> Measured:
    measured: Measured = {side: {} for side in sides}
    for _ in range(rounds):
        for side in sides:
            work = WORK.get(side, 1)
            counts = map(str, (time.monotonic(), calls * work, many * work, in_flight))
            found: Mapping[str, float] = _output("benchmarks.predict_side", side, what, base, *counts)
            for key, value in found.items():
                measured[side].setdefault(key, []).append(value)
    return measured


def _output(module: str, *arguments: str) -> Any:
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _rate_rows(measured: Measured) -> list[Row]:
    found = _medians(measured)
    dspy = [figures for side, figures in found.items() if side.startswith("dspy")]
    alone, best = min(each["p50_us"] for each in dspy), max(each["per_s"] for each in dspy)
    least = min(each["cpu_us"] for each in dspy)
    return [
        {
            "side": side,
            "p50 µs, one at a time": figures["p50_us"],
            "dspy : this": alone / figures["p50_us"],
            "CPU µs each": figures["alone_cpu_us"],
            f"predictions/s at {IN_FLIGHT}": figures["per_s"],
            "this : best dspy": figures["per_s"] / best,
            f"CPU µs each at {IN_FLIGHT}": figures["cpu_us"],
            "least dspy : this": least / figures["cpu_us"],
            "spread of the rate": f"±{spread(measured[side]['per_s']) * 50:.0f} %",
        }
        for side, figures in found.items()
    ]


def _first_rows(measured: Measured) -> list[Row]:
    names = {"dspex native": "dspex native", "dspy threads": "dspy"}
    return [
        {
            "side": names[side],
            "wall, s": figures["wall_s"],
            "best wall, s": min(measured[side]["wall_s"]),
            "CPU, s": figures["cpu_s"],
            "RSS MiB": figures["rss_mib"],
            "spread": f"±{spread(measured[side]['wall_s']) * 50:.0f} %",
        }
        for side, figures in _medians(measured).items()
    ]


def _latency_rows(measured: Measured) -> list[Row]:
    return [
        {
            "side": side,
            **{f"{name} ms": figures[f"{name}_ms"] for name in ("p1", "p10", "p50", "p90", "p99", "max")},
            "predictions/s": figures["per_s"],
            "CPU µs each": figures["cpu_us"],
            "spread": f"±{spread(measured[side]['per_s']) * 50:.0f} %",
        }
        for side, figures in _medians(measured).items()
    ]


def _medians(measured: Measured) -> dict[str, dict[str, float]]:
    return {side: {key: median(values) for key, values in found.items()} for side, found in measured.items()}
