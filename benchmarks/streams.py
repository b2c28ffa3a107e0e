"""How long a piece of a stream is under way from the endpoint to the caller, and how soon a cancel closes it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks.report import Row, median, percentile
from benchmarks.streaming_endpoint import StreamingEndpoint
from benchmarks.streams_side import SIDES

PAUSE_S = 0.01  # between two pieces: what a fast model does
NEVER_MS = 10_000.0  # shown for a connection that the endpoint still had after that


def run(*, quick: bool = False) -> dict[str, list[Row]]:
    """Rounds go round all sides; each is a process of its own with the same endpoint."""
    rounds, pieces, cancels = (1, 60, 3) if quick else (5, 200, 10)
    measured: dict[str, dict[str, list[float]]] = {side: {"delays": [], "gone": [], "first": []} for side in SIDES}
    with StreamingEndpoint(pieces, PAUSE_S) as base:
        for _ in range(rounds):
            for side in SIDES:
                found = _measure(side, base, cancels)
                measured[side]["delays"] += found["delays"]
                measured[side]["first"].append(found["delays"][0])
                measured[side]["gone"] += [NEVER_MS if gone is None else gone for gone in found["gone"]]
    title = f"A stream's pieces, one every {PAUSE_S * 1000:.0f} ms; {rounds} rounds of {pieces}, {cancels} cancels each"
    return {title: [_row(side, found) for side, found in measured.items()]}


def _measure(side: str, base: str, cancels: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.streams_side", side, base, str(cancels)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"{side}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _row(side: str, found: dict[str, list[float]]) -> Row:
    delays = found["delays"]
    return {
        "side": side,
        "first piece ms": median(found["first"]),
        "p50 ms": median(delays),
        "p90 ms": percentile(delays, 0.9),
        "p99 ms": percentile(delays, 0.99),
        "within 5 ms": f"{100 * sum(delay <= 5 for delay in delays) / len(delays):.1f} %",
        "after cancel: connection gone, p50 ms": median(found["gone"]),
        "most ms": max(found["gone"]),
    }
