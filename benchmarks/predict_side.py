"""One side of the predict benchmark, in a fresh process: `python -m benchmarks.predict_side SIDE URL CALLS MANY N`."""

from __future__ import annotations

import time

_began = time.perf_counter()  # before anything is imported: the time to the first prediction includes it

import asyncio  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from collections.abc import Awaitable, Callable  # noqa: E402
from concurrent.futures import ThreadPoolExecutor  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402


def main() -> None:
    side, base, calls, many, in_flight = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
    one, run_many, close = SIDES[side](base)
    one(0)
    first = time.perf_counter() - _began
    rss = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    for i in range(1, 20):
        one(i)
    took = []
    for i in range(20, 20 + calls):
        start = time.perf_counter()
        one(i)
        took.append((time.perf_counter() - start) * 1e6)
    start = time.perf_counter()
    run_many(range(10_000, 10_000 + many), in_flight)
    per_s = many / (time.perf_counter() - start)
    took.sort()
    print(json.dumps({"p50": took[len(took) // 2], "per_s": per_s, "first_s": first, "rss_mib": rss}), flush=True)
    close()


def _native(base: str) -> Any:
    import dspex

    program = dspex.predictor("predict", "question -> answer", lm=_lm(base), implementation="native")
    return (
        lambda i: program(question=f"what is {i}?"),
        lambda numbers, n: asyncio.run(_gather(lambda i: program.acall(question=f"what is {i}?"), numbers, n)),
        lambda: None,
    )


def _in_worker(base: str) -> Any:
    import dspex

    sup = dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=2)]).start()
    program = dspex.predictor("predict", "question -> answer", lm=_lm(base), implementation="python", supervisor=sup)
    return (
        lambda i: program(question=f"what is {i}?"),
        lambda numbers, n: asyncio.run(_gather(lambda i: program.acall(question=f"what is {i}?"), numbers, n)),
        sup.stop,
    )


def _lm(base: str) -> Any:
    import dspex

    return dspex.LM("openai/any", api_base=base, api_key="k", cache=False)


def _dspy(base: str) -> Any:
    import dspy

    lm = dspy.LM("openai/any", api_base=base, api_key="k", cache=False, engine="lm15")
    dspy.configure(lm=lm, disable_history=True, trace=None)
    return dspy.Predict("question -> answer")


def _dspy_threads(base: str) -> Any:
    program = _dspy(base)

    def many(numbers: range, in_flight: int) -> None:
        with ThreadPoolExecutor(in_flight) as threads:
            list(threads.map(lambda i: program(question=f"what is {i}?"), numbers))

    return lambda i: program(question=f"what is {i}?"), many, lambda: os._exit(0)


def _dspy_acall(base: str) -> Any:
    program = _dspy(base)
    return (
        lambda i: program(question=f"what is {i}?"),
        lambda numbers, n: asyncio.run(_gather(lambda i: program.acall(question=f"what is {i}?"), numbers, n)),
        lambda: os._exit(0),
    )


async def _gather(one: Callable[[int], Awaitable[Any]], numbers: range, in_flight: int) -> None:
    todo = iter(numbers)

    async def worker() -> None:
        for i in todo:
            await one(i)

    await asyncio.gather(*(worker() for _ in range(in_flight)))


SIDES = {
    "dspex native": _native,
    "dspex in a worker": _in_worker,
    "dspy threads": _dspy_threads,
    "dspy acall": _dspy_acall,
}

if __name__ == "__main__":
    main()
