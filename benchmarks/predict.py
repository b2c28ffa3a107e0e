"""Native predict beside `dspy.Predict`, on the same loopback endpoint with no latency of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks.endpoint import Endpoint
from benchmarks.report import Row, median, spread

SIDES = ("dspex native", "dspex in a worker", "dspy threads", "dspy acall")
IN_FLIGHT = 64


def run(*, quick: bool = False) -> dict[str, list[Row]]:
    """Rounds go round all sides; each is a process of its own with the same endpoint."""
    rounds, calls, many = (2, 100, 300) if quick else (5, 500, 2_000)
    measured: dict[str, dict[str, list[float]]] = {side: {} for side in SIDES}
    with Endpoint() as base:
        for _ in range(rounds):
            for side in SIDES:
                for key, value in _measure(side, base, calls, many).items():
                    measured[side].setdefault(key, []).append(value)
    title = f"Predictions on one endpoint without latency; medians of {rounds} rounds"
    return {title: _rows(measured)}


def _measure(side: str, base: str, calls: int, many: int) -> dict[str, float]:
    arguments = [sys.executable, "-m", "benchmarks.predict_side", side, base, str(calls), str(many), str(IN_FLIGHT)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"{side}: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _rows(measured: dict[str, dict[str, list[float]]]) -> list[Row]:
    medians: dict[str, dict[str, float]] = {
        side: {key: median(values) for key, values in found.items()} for side, found in measured.items()
    }
    best_rate = max(medians[side]["per_s"] for side in SIDES if side.startswith("dspy"))
    best_latency = min(medians[side]["p50"] for side in SIDES if side.startswith("dspy"))
    rows: list[Any] = [
        {
            "side": side,
            "p50 µs, one at a time": found["p50"],
            "dspy : this": best_latency / found["p50"],
            "predictions/s at 64": found["per_s"],
            "this : best dspy": found["per_s"] / best_rate,
            "to the first, s": found["first_s"],
            "RSS MiB": found["rss_mib"],
            "spread": f"±{spread(measured[side]['per_s']) * 50:.0f} %",
        }
        for side, found in medians.items()
    ]
    return rows
