"""What a soak does to the pools: a fault about every half second, drawn from one seed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random

from dspex.errors import DspexError, PoisonCall
from dspex.pools.supervisor import Supervisor
from tests.support.chaos.traffic import ANSWERED, MANY, SINGLE, Traffic

MIB = 1024 * 1024
EVERY = 0.5  # seconds between faults, on average
OVER_THE_CAP = 600 * MIB

Injury = Callable[[str, Random], Awaitable[None]]


class Injuries:
    """Injects faults until it is cancelled; `counts` says which."""

    def __init__(self, sup: Supervisor, traffic: Traffic, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self._sup = sup
        self._traffic = traffic
        self._random = Random(f"{seed} injuries")
        self._sizes = {name: pool["size"] for name, pool in sup.stats().items()}
        self._tasks: set[asyncio.Task[None]] = set()
        self._kinds: dict[str, tuple[int, Injury]] = {
            "kill": (10, self._kill),
            "exit": (4, self._calling("exit", lambda r: {"code": r.randrange(256)})),
            "segfault": (4, self._calling("kill", lambda r: {"signal": int(signal.SIGSEGV)})),
            "hang in C": (3, self._calling("spin_c", lambda r: {"seconds": 30.0}, timeout=0.2)),
            "swallow": (3, self._calling("swallow", lambda r: {"seconds": 30.0}, timeout=0.2)),
            "stop": (2, self._stop),
            "leak": (8, self._calling("leak", lambda r: {"bytes": 10 * MIB})),
            "over the cap": (2, self._over),
            "garbage": (3, self._calling("garbage", lambda r: {"data": r.randbytes(64), "seconds": 5.0})),
            "truncated": (2, self._calling("garbage", lambda r: {"data": b"\0\0\1\0" + r.randbytes(8), "exit": True})),
            "flood": (3, self._calling("flood_stderr", lambda r: {"bytes": 4 * MIB})),
            "memory error": (2, self._calling("raise_error", lambda r: {"type": "MemoryError", "message": "full"})),
            "recycle": (2, self._recycle),
            "reload": (1, self._reload),
            "resize": (2, self._resize),
            "forkserver killed": (1, self._kill_forkserver),
        }

    async def run(self) -> None:
        """Injure until cancelled; then let what was begun end, and give the pools their sizes back."""
        names, weights = list(self._kinds), [weight for weight, _ in self._kinds.values()]
        try:
            while True:
                await asyncio.sleep(self._random.expovariate(1 / EVERY))
                name = self._random.choices(names, weights)[0]
                pool = MANY if self._random.random() < 0.6 else SINGLE
                self.counts[name] += 1
                task = asyncio.create_task(self._kinds[name][1](pool, self._random))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except asyncio.CancelledError:
            await asyncio.gather(*self._tasks)
            for name, size in self._sizes.items():
                self._sup.pool(name).resize(size)

    # -- from inside --

    def _calling(self, command: str, arguments: Callable[[Random], dict[str, object]], timeout: float = 10.0) -> Injury:
        async def injure(pool: str, random: Random) -> None:
            given = arguments(random)

            async def call(id: int, random: Random) -> str:
                await self._sup.acall(pool, command, given, timeout=timeout)
                return ANSWERED

            allowed = (PoisonCall,) if command in ("exit", "kill") else ()
            if command == "raise_error":
                allowed = (DspexError,)
            await self._traffic.once(f"({command})", call, random, allowed)

        return injure

    async def _over(self, pool: str, random: Random) -> None:
        await self._calling("allocate", lambda r: {"bytes": OVER_THE_CAP + r.randrange(MIB), "seconds": 5.0})(
            SINGLE, random
        )

    # -- from outside --

    async def _kill(self, pool: str, random: Random) -> None:
        self._signal(pool, random, signal.SIGKILL)

    async def _stop(self, pool: str, random: Random) -> None:
        self._signal(pool, random, signal.SIGSTOP)

    async def _kill_forkserver(self, pool: str, random: Random) -> None:
        reaper = self._sup.stats()[pool]["reaper"]
        if reaper.startswith("fork server"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(reaper.split()[-1]), signal.SIGKILL)

    def _signal(self, pool: str, random: Random, number: signal.Signals) -> None:
        rows = self._sup.stats()[pool]["workers"]
        pids = [row["pid"] for row in rows if row["phase"] in ("ready", "draining") and row["pid"]]
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(random.choice(pids), number)

    # -- the operator --

    async def _recycle(self, pool: str, random: Random) -> None:
        await self._recycled(pool, reload=False)

    async def _reload(self, pool: str, random: Random) -> None:
        await self._recycled(pool, reload=True)

    async def _recycled(self, pool: str, *, reload: bool) -> None:
        with contextlib.suppress(TimeoutError):  # it goes on
            await asyncio.to_thread(self._sup.pool(pool).recycle, reload=reload, timeout=20.0)

    async def _resize(self, pool: str, random: Random) -> None:
        self._sup.pool(pool).resize(random.randrange(1, 5))
        await asyncio.sleep(2.0)
        self._sup.pool(pool).resize(self._sizes[pool])
