"""A call's latency and throughput, beside a raw pipe and the process pools that one would take instead."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks.peers import PEERS
from benchmarks.report import Row, median, spread

IN_FLIGHT = 64


def run(*, quick: bool = False) -> dict[str, list[Row]]:
    """Rounds go round all peers, so that a change of the machine's mood hits them alike."""
    rounds, calls, many = (2, 500, 2_000) if quick else (7, 3_000, 20_000)
    peers = {name: _Peer(name) for name in PEERS}
    measured: dict[str, dict[str, list[float]]] = {name: {} for name in peers}
    try:
        for _ in range(rounds):
            for name, peer in peers.items():
                for order in ({"latency": calls}, {"throughput": many, "in_flight": IN_FLIGHT}):
                    for key, value in peer.measure(order).items():
                        measured[name].setdefault(key, []).append(value)
    finally:
        for peer in peers.values():
            peer.close()
    return {f"Calls: one in flight, and {IN_FLIGHT}; medians of {rounds} rounds, two workers": _rows(measured)}


def _rows(measured: dict[str, dict[str, list[float]]]) -> list[Row]:
    medians = {name: {key: median(values) for key, values in found.items()} for name, found in measured.items()}
    base = medians["ProcessPoolExecutor"]
    return [
        {
            "peer": name,
            "p50 µs": found["p50"],
            "p99 µs": found["p99"],
            "p50 : ProcessPoolExecutor": found["p50"] / base["p50"],
            "p50 : raw pipe": found["p50"] / medians["raw pipe"]["p50"],
            "calls/s at 64": found.get("per_s"),
            "rate : ProcessPoolExecutor": found["per_s"] / base["per_s"] if "per_s" in found else None,
            "spread": f"±{spread(measured[name]['p50']) * 50:.0f} %",
        }
        for name, found in medians.items()
    ]


class _Peer:
    """A peer's process and its two pipes."""

    def __init__(self, name: str) -> None:
        self._process: Any = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read()

    def measure(self, order: dict[str, Any]) -> dict[str, float]:
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peer {self._process.args[-1]!r} ended; is `make bench`'s extra installed?")
        found: dict[str, Any] = json.loads(line)
        return found
