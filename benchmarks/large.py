"""64 MB there and back: an echo of bytes in a worker of one pool, beside loky and multiprocessing."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import dspex
from benchmarks.peers import echo
from benchmarks.report import Row, median, percentile, spread

SIZES = (1_000_000, 8_000_000, 64_000_000)  # bytes
LEFT_OUT = 2  # the first calls, which start workers and take memory


def run(*, quick: bool = False) -> dict[str, list[Row]]:
    rounds = 3 if quick else 15
    rows: list[Row] = []
    for peer, measure in (("dspex", _dspex), ("loky", _loky), ("multiprocessing", _multiprocessing)):
        for size, times in measure(rounds).items():
            rows.append(
                {
                    "peer": peer,
                    "MB": size / 1e6,
                    "p50, ms": percentile(times, 0.5),
                    "fastest, ms": min(times),
                    "spread": f"±{spread(times) / median(times) * 50:.0f} %" if median(times) else "",
                }
            )
    return {f"Bytes there and back; {rounds} rounds": rows}


def _timed(call: Callable[[bytes], object], rounds: int) -> dict[int, list[float]]:
    """Return the milliseconds of each round, by size."""
    found: dict[int, list[float]] = {}
    for size in SIZES:
        data, times = b"x" * size, []
        for _ in range(rounds + LEFT_OUT):
            began = time.perf_counter()
            answer = call(data)
            times.append((time.perf_counter() - began) * 1000)
            if answer != {"v": data}:
                raise RuntimeError("another answer than what was sent")
            del answer
        found[size] = times[LEFT_OUT:]
    return found


def _dspex(rounds: int) -> dict[int, list[float]]:
    pool = dspex.PoolConfig("faults", bridge="faults", size=1, frame_limit="80MiB")
    with dspex.Supervisor(pools=[pool]) as sup:
        return _timed(lambda data: sup.call("faults", "echo", {"v": data}), rounds)


def _loky(rounds: int) -> dict[int, list[float]]:
    import loky  # type: ignore[import-untyped]

    with loky.ProcessPoolExecutor(1) as executor:
        return _timed(lambda data: executor.submit(echo, v=data).result(), rounds)


def _multiprocessing(rounds: int) -> dict[int, list[float]]:
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        return _timed(lambda data: executor.submit(echo, v=data).result(), rounds)
