"""Hostile replies over real HTTP to native and worker predictors: what they cost, say and leave behind.

    python -m tests.support.lm.fuzz_endpoints --seconds 60 [--seed N] [--only NUMBER]

One reply at a time is asked for on an event loop, on which a task ticks and a good pool answers. Exits with 1 where a
reply cost more CPU time or memory than the bounds below, blocked the loop, raised anything but DSPex's own errors, was
kept though it is no answer, or showed the key; each with the number that makes it again.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import json
import logging
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

import dspex
from dspex import defaults
from dspex.adapters.adapter_names import ADAPTERS
from dspex.errors import DspexError, LMError, RemoteError
from dspex.events import Event
from dspex.pools.supervisor import Supervisor
from dspex_worker.memory.procfs import rss_of
from tests.support.adapters.hostile_replies import signatures
from tests.support.lm.fuzz_clock import Clock, Spent
from tests.support.lm.hostile_bodies import FORMS, SIZES
from tests.support.lm.hostile_endpoint import HostileEndpoint, hostile_endpoint
from tests.support.lm.requests import forwarded

KEY = "kZ7-canary/9fQ+x2Vb=W"
MIB = 1024 * 1024
BLOCK_S = 0.05
# The repair of damaged JSON has its own bound, a million steps or a second for each attempt at a reply.
CPU_LEAST_S, CPU_PER_MIB_S, CPU_MOST_S = 2.5, 1.5, 10.0
PEAK_LEAST, PEAK_PER_BYTE, PEAK_MOST = 32 * MIB, 60, 400 * MIB
WARM_UP = 50
GROWN_MOST = 100 * MIB
BASES = 40  # addresses, since an endpoint that fails often is left alone for a moment
TRIES = 3  # a machine that is busy elsewhere blocks a loop too: the least of so many is believed
ROUTES = ("native", "native", "native stream", "thread", "python", "python stream", "embeddings")
MODELS = ("openai/m", "openai/m", "anthropic/m", "gemini/m")


@dataclass
class Verdict:
    """What was found so far."""

    replies: int = 0
    good: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    worst_block: tuple[float, str] = (0.0, "")
    worst_cpu: tuple[float, str] = (0.0, "")
    worst_peak: tuple[float, str] = (0.0, "")
    slopes: dict[int, float] = field(default_factory=dict)  # CPU seconds for a MiB, the worst of a size

    def add(self, spent: Spent, size: int, what: str) -> None:
        self.worst_block = max(self.worst_block, (spent.block_s, what))
        self.worst_cpu = max(self.worst_cpu, (spent.cpu_s, what))
        self.worst_peak = max(self.worst_peak, (spent.peak / MIB, what))
        bucket = next((most for most in SIZES if size <= most * 1.1 + 600), max(SIZES) * 10)
        if size > 5_000:
            rate = spent.cpu_s / (size / MIB)
            self.slopes[bucket] = max(self.slopes.get(bucket, 0.0), rate)


class EndpointFuzz:
    """One run."""

    def __init__(self, seed: int, endpoint: HostileEndpoint, sup: Supervisor) -> None:
        self.seed = seed
        self.verdict = Verdict()
        self._endpoint = endpoint
        self._sup = sup
        self._signatures = list(signatures())
        self._told: list[str] = []
        self._log = _Listening(self._told)
        self._clock = Clock()

    async def run(self, *, seconds: float, only: int | None) -> None:
        """Ask until the time is over."""
        logging.getLogger("dspex").addHandler(self._log)
        self._sup.on_event(self._hear)
        company = asyncio.create_task(self._be_good())
        ticking = asyncio.create_task(self._clock.tick())
        until = time.monotonic() + seconds
        before = 0
        number = only or 1
        while time.monotonic() < until:
            if (
                self.verdict.replies <= WARM_UP
            ):  # which load what reading replies needs, pydantic and json_repair for two
                before = rss_of(_pid())
            await self._one(number)
            if only is not None:
                break
            number += 1
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what the allocator keeps for itself is no leak, and may be half of it
        if (grown := rss_of(_pid()) - before) > GROWN_MOST:
            self.verdict.faults.append(f"the host grew by {grown / MIB:.0f} MiB")
        self.grown = grown
        for task in (company, ticking):
            task.cancel()
        failed = await asyncio.gather(company, ticking, return_exceptions=True)
        self.verdict.faults += [repr(error) for error in failed if not isinstance(error, asyncio.CancelledError)]

    async def _one(self, number: int) -> None:
        asked = _Asked(self.seed, number, self._signatures)
        tries: list[Spent] = []
        for _ in range(TRIES):
            defaults.client().cache.clear()
            self._told.clear()
            begun = self._clock.begin()
            self._endpoint.size, self._endpoint.what = 0, "no reply"
            outcome = await self._asked(asked)
            tries.append(self._clock.end(begun))
            if not _is_over(tries[-1], self._endpoint.size):
                break
        spent = min(tries, key=lambda each: (each.block_s, each.cpu_s))
        what = f"number {number}: {asked} {self._endpoint.what}, {self._endpoint.size:,} bytes"
        verdict = self.verdict
        verdict.replies += 1
        said = f"{type(outcome).__name__}"
        verdict.outcomes[said] = verdict.outcomes.get(said, 0) + 1
        verdict.add(spent, self._endpoint.size, what)
        if over := _is_over(spent, self._endpoint.size):
            verdict.faults.append(f"{over}: {what}")
        if isinstance(outcome, BaseException) and not isinstance(outcome, DspexError):
            verdict.faults.append(f"{outcome!r}: {what}")
        self._look(outcome, what, has_two_requests=asked.adapter == "two_step")

    async def _asked(self, asked: _Asked) -> Any:
        try:
            return await asyncio.wait_for(asked.ask(self._endpoint.address, self._sup), 60)
        except Exception as error:  # whatever comes is judged
            return error

    def _look(self, outcome: Any, what: str, *, has_two_requests: bool) -> None:
        kept = list(defaults.client().cache._entries.values())  # nothing public tells what is kept
        bodies = [entry[1].body for entry in kept]
        # Nor what only DSPy's reader in a worker refuses. The first of two requests may well be answered.
        if bodies and not has_two_requests and isinstance(outcome, LMError | RemoteError):
            self.verdict.faults.append(f"{type(outcome).__name__} was kept: {what}")
        shown = "".join((_told_by(outcome), *self._told, *(body.decode("utf-8", "replace") for body in bodies)))
        for form, make in FORMS.items():
            if make(KEY) in shown:
                self.verdict.faults.append(f"the key is shown ({form}): {what}")

    async def _be_good(self) -> None:
        while True:
            number = self.verdict.good
            assert await self._sup.acall("good", "echo", {"n": number}, timeout=20) == {"n": number}
            self.verdict.good += 1
            await asyncio.sleep(0.01)

    def _hear(self, event: Event) -> None:
        self._told.append(repr(event.facts))


class _Asked:
    """How a number's reply is asked for."""

    def __init__(self, seed: int, number: int, known: list[Any]) -> None:
        random = Random(f"{seed}/{number}/asked")
        self.name = f"{seed}.{number % BASES}"
        self.question = f"number {number}"
        self.route = random.choice(ROUTES)
        self.model = random.choice(MODELS if "python" in self.route else MODELS[:3])
        self.adapter = random.choice(ADAPTERS)
        self.signature = random.choice(known)
        self.streams = "stream" in self.route
        if self.route == "embeddings":
            self.model = "openai/m"

    def __str__(self) -> str:
        return f"{self.route} {self.model} {self.adapter} {self.signature}"

    async def ask(self, address: str, sup: Supervisor) -> Any:
        lm = dspex.LM(self.model, api_base=f"{address}/{self.name}/v1", api_key=KEY, cache=True, retries=0)
        if self.route == "embeddings":
            return await _embedded(lm, self.question)
        way = "python" if "python" in self.route else "auto"
        options: dict[str, Any] = {"lm": lm, "adapter": self.adapter, "supervisor": sup, "timeout": 15.0}
        program = dspex.predictor("predict", self.signature, implementation=way, **options)  # type: ignore[arg-type]
        if self.route == "thread":
            return await asyncio.to_thread(program, q=self.question)
        if self.streams:
            return [each async for each in program.astream(q=self.question)]
        return await program.acall(q=self.question)


async def _embedded(lm: dspex.LM, text: str) -> list[Any]:
    client = defaults.client()
    client.register(lm)
    request = forwarded(lm, url=f"{lm.api_base}/embeddings", body=json.dumps({"model": "m", "input": [text]}).encode())
    return [part async for part in client.aforward(request, deadline=time.monotonic() + 15)]


def _is_over(spent: Spent, size: int) -> str:
    """Return what is over its bound."""
    cpu = min(CPU_LEAST_S + CPU_PER_MIB_S * size / MIB, CPU_MOST_S)
    peak = min(PEAK_LEAST + PEAK_PER_BYTE * size, PEAK_MOST)
    if spent.block_s > BLOCK_S:
        return f"the loop was blocked for {spent.block_s * 1000:.0f} ms"
    if spent.cpu_s > cpu:
        return f"{spent.cpu_s:.2f} s of CPU time are over {cpu:.2f}"
    return f"{spent.peak / MIB:.0f} MiB are over {peak / MIB:.0f}" if spent.peak > peak else ""


def _told_by(outcome: Any) -> str:
    told, seen = [repr(outcome), str(outcome)], 0
    error = outcome if isinstance(outcome, BaseException) else None
    while error is not None and seen < 10:
        told += [str(error), repr(error), repr(vars(error))]
        error, seen = error.__cause__ or error.__context__, seen + 1
    return "".join(told)


class _Listening(logging.Handler):
    """Keeps what is logged."""

    def __init__(self, told: list[str]) -> None:
        super().__init__()
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        self._told.append(record.getMessage())


def _pid() -> int:
    import os

    return os.getpid()


def main() -> int:
    """Fuzz for a while; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.lm.fuzz_endpoints", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6))
    parser.add_argument("--only", type=int, help="ask for this number's reply alone")
    options = parser.parse_args()
    root = str(Path(__file__).parents[3])
    env = {"PYTHONPATH": f"{root}:{root}/workers"}
    pools = [dspex.PoolConfig("dspy", size=2, env=env), dspex.PoolConfig("good", bridge="faults", size=1, env=env)]
    print(f"seed {options.seed}", flush=True)
    with hostile_endpoint() as endpoint, dspex.Supervisor(pools=pools) as sup:
        sup.wait_ready()
        fuzz = EndpointFuzz(options.seed, endpoint, sup)
        gc.collect()
        gc.freeze()
        asyncio.run(fuzz.run(seconds=options.seconds, only=options.only))
    verdict = fuzz.verdict
    print(
        f"{verdict.replies:,} replies, seed {options.seed}: {dict(sorted(verdict.outcomes.items()))}; the good pool "
        f"answered {verdict.good:,} of {verdict.good:,}; RSS grew by {fuzz.grown / MIB:.1f} MiB"
    )
    for name, (worst, what) in (
        ("block of the loop, s", verdict.worst_block), ("CPU, s", verdict.worst_cpu), ("peak, MiB", verdict.worst_peak),
    ):  # fmt: skip
        print(f"worst {name}: {worst:.3f} ({what})")
    print("CPU s for a MiB, by size: ", {size: round(rate, 3) for size, rate in sorted(verdict.slopes.items())})
    print(*verdict.faults[:50], f"{len(verdict.faults)} faults", sep="\n")
    return 1 if verdict.faults else 0


if __name__ == "__main__":
    sys.exit(main())
