"""A module of a user's own, supervised, beside the same in plain DSPy: CPU time of a call, calls at 32 in flight."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks.endpoint import Endpoint
from benchmarks.modules_side import CASES, IN_FLIGHT, SIDES
from benchmarks.report import Row, median, spread

Found = dict[str, list[float]]


def run(*, quick: bool = False) -> dict[str, list[Row]]:
    """Rounds go round all sides and cases; each is a process of its own; all have one endpoint."""
    rounds, calls, many = (2, 100, 300) if quick else (5, 400, 1_500)
    tables: dict[str, list[Row]] = {}
    with Endpoint() as base:
        for case in CASES:
            found: dict[str, Found] = {side: {} for side in SIDES}
            for _ in range(rounds):
                for side in SIDES:
                    for key, value in _figures(side, case, base, calls, many).items():
                        found[side].setdefault(key, []).append(value)
            tables[f"A module: {case}; an endpoint without latency; medians of {rounds} rounds"] = _rows(found)
    return tables


def _figures(side: str, case: str, base: str, calls: int, many: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.modules_side", side, case, base, str(calls), str(many)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[2:])}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _rows(found: dict[str, Found]) -> list[Row]:
    middle = {side: {key: median(values) for key, values in each.items()} for side, each in found.items()}
    called = middle["dspy threads"]["cpu_us"]  # one at a time: the plain call of DSPy
    best = max(each["per_s"] for side, each in middle.items() if side != "dspex.module")
    return [
        {
            "side": side,
            "p50 µs, one at a time": each["p50_us"],
            "CPU µs each, workers included": each["cpu_us"],
            "this : dspy's call": each["cpu_us"] / called,
            f"calls/s at {IN_FLIGHT}": each["per_s"],
            "this : best dspy": each["per_s"] / best,
            f"CPU µs each at {IN_FLIGHT}": each["busy_cpu_us"],
            "spread of the CPU, of the rate": f"±{spread(found[side]['cpu_us']) * 50:.0f} %, "
            f"±{spread(found[side]['per_s']) * 50:.0f} %",
        }
        for side, each in middle.items()
    ]
