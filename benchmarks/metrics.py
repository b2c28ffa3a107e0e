"""A CPU-bound metric by import path over worker processes, beside `dspy.Evaluate`'s threads; and what it costs others.

The metric counts primes in pure Python, a few tens of milliseconds; the endpoint answers at once. `spread` compares the
time of an evaluation. `beside` asks natively, in Python and with `echo` while the optimizer pool is saturated.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspex
from benchmarks.endpoint import Endpoint
from benchmarks.report import Row, percentile, spread

ROOT = Path(__file__).parents[1]
MODEL = "openai/any"
UP_TO = 300_000  # below which primes are counted
WORKERS = 4


def primes(example: Any, prediction: Any, trace: Any = None) -> float:
    """Return 1.0 after some tens of milliseconds of Python."""
    sieve = bytearray([1]) * UP_TO
    for number in range(2, int(UP_TO**0.5) + 1):
        if sieve[number]:
            for multiple in range(number * number, UP_TO, number):
                sieve[multiple] = 0
    return float(sum(sieve) > 0)


def run(*, quick: bool = False) -> dict[str, list[Row]]:
    """Rounds go round the sides, so that a change of the machine's mood hits them alike."""
    with Endpoint() as base:
        return {**_spread(base, *((40, 1) if quick else (60, 3))), **_beside(base, 3.0 if quick else 8.0)}


def _pool(name: str, **settings: Any) -> dspex.PoolConfig:
    path = os.pathsep.join(entry for entry in (str(ROOT), os.environ.get("PYTHONPATH", "")) if entry)
    return dspex.PoolConfig(name, imports=[__name__], env={"PYTHONPATH": path}, **settings)


def _spread(base: str, rows: int, rounds: int) -> dict[str, list[Row]]:
    devset = [{"question": f"q{number}", "answer": "4"} for number in range(rows)]
    seconds: dict[str, list[float]] = {}
    with dspex.Supervisor(pools=[_pool("dspy", size=WORKERS, concurrency=2), _pool("mipro", size=WORKERS)]) as sup:
        sup.wait_ready()
        program = dspex.predictor(
            "predict", "question -> answer", lm=dspex.LM(MODEL, api_base=base, api_key="k", cache=False), supervisor=sup
        )
        metric = f"{__name__}:primes"

        def ours(pool: str) -> float:
            began = time.perf_counter()
            assert dspex.evaluate(program, devset, metric, pool=pool, num_threads=WORKERS).score == 100.0
            return time.perf_counter() - began

        def job(pool: str | None) -> float:
            began = time.perf_counter()
            dspex.optimize(
                program, devset, optimizer="labeled", metric=metric, metric_pool=pool, progress=False, journal=False
            )
            return time.perf_counter() - began

        sides: dict[str, Callable[[], float]] = {
            f"dspy.Evaluate, {WORKERS} threads": lambda: _dspys(base, rows),
            f"dspex.evaluate, {WORKERS} workers of dspy": lambda: ours("dspy"),
            f"dspex.evaluate, {WORKERS} workers of mipro": lambda: ours("mipro"),
            "dspex.optimize(labeled), its worker alone": lambda: job(None),
            f"dspex.optimize(labeled), metric_pool of {WORKERS}": lambda: job("dspy"),
        }
        ours("dspy")  # imports
        for _ in range(rounds):
            for side, take in sides.items():
                seconds.setdefault(side, []).append(take())
    firsts = {"dspy": f"dspy.Evaluate, {WORKERS} threads", "dspex.o": "dspex.optimize(labeled), its worker alone"}

    def first_of(side: str) -> str:
        return firsts["dspex.o"] if side.startswith("dspex.o") else firsts["dspy"]

    found = [
        {
            "side": side,
            "s": statistics.median(each),
            "speed-up": statistics.median(seconds[first_of(side)]) / statistics.median(each),
            "spread": f"±{spread(each) * 50:.0f} %",
        }
        for side, each in seconds.items()
    ]
    cores = len(os.sched_getaffinity(0))
    return {f"{rows} examples, a metric that computes, {cores} cores; medians of {rounds} rounds": found}


DSPYS = """
import json, sys, time, dspy
from benchmarks.metrics import MODEL, WORKERS, primes
base, rows = sys.argv[1], int(sys.argv[2])
dspy.configure(lm=dspy.LM(MODEL, api_base=base, api_key="k", cache=False))
devset = [dspy.Example(question=f"q{n}", answer="4").with_inputs("question") for n in range(rows)]
evaluate = dspy.Evaluate(devset=devset, metric=primes, num_threads=WORKERS, display_progress=False)
program = dspy.Predict("question -> answer")
program(question="first")
began = time.perf_counter()
assert evaluate(program).score == 100.0
print(json.dumps(time.perf_counter() - began))
"""


def _dspys(base: str, rows: int) -> float:
    done = subprocess.run(
        [sys.executable, "-c", DSPYS, base, str(rows)],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
        check=True,
    )
    return float(json.loads(done.stdout.splitlines()[-1]))


def _beside(base: str, seconds: float) -> dict[str, list[Row]]:
    """Return the latencies of a serving pool: alone, beside a saturated mipro, and beside one that gives way."""
    last = max(os.sched_getaffinity(0))
    sides: dict[str, dict[str, Any] | None] = {
        "alone": None,
        "mipro saturated": {},
        "mipro saturated, nice=19": {"nice": 19},
        f"mipro saturated, cpus=[{last}]": {"cpus": [last]},
        f"mipro saturated, nice=19, cpus=[{last}]": {"nice": 19, "cpus": [last]},
    }
    rows: dict[str, Row] = {}
    times: dict[str, dict[str, list[float]]] = {}
    for _ in range(2):
        for side, settings in sides.items():
            for what, each in _asked(base, seconds / 2, settings).items():
                times.setdefault(side, {}).setdefault(what, []).extend(each)
    for side, found in times.items():
        rows[side] = {"side": side}
        for what, each in found.items():
            rows[side] |= {
                f"{what} p50 ms": percentile(each, 0.5) * 1e3,
                f"{what} p99 ms": percentile(each, 0.99) * 1e3,
            }
    return {f"One call at a time of each kind beside two jobs that compute, {seconds:g} s each": list(rows.values())}


def _asked(base: str, seconds: float, settings: dict[str, Any] | None) -> dict[str, list[float]]:
    pools = [_pool("dspy", size=2), _pool("mipro", size=2, **(settings or {}))]
    lm = dspex.LM(MODEL, api_base=base, api_key="k", cache=False)
    with dspex.Supervisor(pools=pools) as sup:
        sup.wait_ready()
        native = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup)
        python = native.using(implementation="python")
        calls: dict[str, Callable[[], Any]] = {
            "native": lambda: native(question="2+2?"),
            "python": lambda: python(question="2+2?"),
            "echo": lambda: sup.call("dspy", "echo", {"text": "x"}),
        }
        for call in calls.values():
            call()
        devset = [{"question": f"q{number}", "answer": "4"} for number in range(2_000)]
        jobs = [
            dspex.optimize(
                native,
                devset,
                optimizer="labeled",
                metric=f"{__name__}:primes",
                wait=False,
                progress=False,
                journal=False,
            )
            for _ in range(0 if settings is None else 2)
        ]
        threading.Event().wait(0.0 if settings is None else 2.0)  # they are at work
        found: dict[str, list[float]] = {what: [] for what in calls}
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            for what, call in calls.items():
                began = time.perf_counter()
                call()
                found[what].append(time.perf_counter() - began)
        assert all(job.state == "running" for job in jobs), [job.state for job in jobs]
        for job in jobs:
            job.cancel()
    return found
