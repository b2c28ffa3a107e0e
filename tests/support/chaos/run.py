"""A chaos run: the plan's calls, 64 in flight from one event loop, while workers are killed under it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import threading
import time
from pathlib import Path

from dspex.config import PoolConfig
from dspex.pools.supervisor import Supervisor
from tests.support.chaos.ledger import Ledger
from tests.support.chaos.plan import Plan
from tests.support.chaos.resources import Holdings


class ChaosRun:
    """One run; afterwards `ledger` says what became of the calls, `warm` and `end` what the process held."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        *,
        in_flight: int = 64,
        size: int = 4,
        kill_every_s: float = 0,
        least_kills: int = 0,
    ) -> None:
        """Calls go on until there were `least_kills`, however fast the machine answers them."""
        self.plan = plan
        self.ledger = Ledger(plan)
        self.effects = folder / "effects"
        self.kills = 0
        self.seconds = 0.0
        self.warm: Holdings
        self.end: Holdings
        self._in_flight = in_flight
        self._kill_every_s = kill_every_s
        self._least_kills = least_kills
        self._numbers = itertools.count()
        self._owed = 0  # kills of the plan that found no worker ready
        self._config = PoolConfig("f", bridge="faults", size=size, stop_grace=1.0, restart_budget=(100, 1.0))

    def execute(self) -> None:
        """Run the plan in a supervisor of its own."""
        before = Holdings.now()
        with Supervisor(pools=[self._config]) as sup:
            sup.wait_ready()
            asyncio.run(self._settle(sup))
            self._wait_for_workers(sup)
            self.warm = Holdings.now()
            began = time.monotonic()
            asyncio.run(self._main(sup))
            self.seconds = time.monotonic() - began
            self.end = self._settled(sup)
            assert sup.stats()["f"]["in_flight"] == 0
        after = Holdings.now()
        assert (after.descriptors, after.children) == (before.descriptors, before.children), (before, after)

    async def _settle(self, sup: Supervisor) -> None:
        """Make what is made once (threads, buffers) before holdings are compared."""
        await asyncio.gather(*[sup.acall("f", "echo", {"n": n}) for n in range(1000)])

    async def _main(self, sup: Supervisor) -> None:
        callers = asyncio.gather(*[self._caller(sup) for _ in range(self._in_flight)])
        if not self._kill_every_s:
            await callers
            return
        killer = asyncio.create_task(self._kill_by_the_clock(sup))
        await asyncio.wait([callers, killer], return_when=asyncio.FIRST_COMPLETED)
        killer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await killer
        await callers

    async def _caller(self, sup: Supervisor) -> None:
        while len(self.ledger.ends) < self.plan.calls or self.kills < self._least_kills or self._owed:
            number = next(self._numbers)
            self._owed += self.plan.kills_at(number)
            if self._owed and self._kill(sup):
                self._owed -= 1
            call = self.plan.call(number)
            self.ledger.made(call)
            arguments = call.arguments(str(self.effects))
            try:
                value = await sup.acall("f", call.command, arguments, timeout=60, idempotent=call.idempotent)
            except Exception as error:
                self.ledger.failed(call, error)
            else:
                self.ledger.answered(call, value)

    async def _kill_by_the_clock(self, sup: Supervisor) -> None:
        while True:
            await asyncio.sleep(self._kill_every_s)
            self._kill(sup)

    def _kill(self, sup: Supervisor) -> bool:
        """Kill a worker; False if none is ready."""
        pids = [row["pid"] for row in sup.stats()["f"]["workers"] if row["phase"] == "ready" and row["pid"]]
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.plan.victim(pids), signal.SIGKILL)
                self.kills += 1
                return True
        return False

    def _settled(self, sup: Supervisor) -> Holdings:
        """What is held once the last kill has been noticed and made good; looked at again for ten seconds at most.

        A worker that was killed just now is still there for its pool, with some of its descriptors closed.
        """
        deadline = time.monotonic() + 10
        while True:
            self._wait_for_workers(sup)
            holdings = Holdings.now()
            if holdings.is_as_many_as(self.warm) or time.monotonic() > deadline:
                return holdings
            threading.Event().wait(0.02)

    def _wait_for_workers(self, sup: Supervisor) -> None:
        deadline = time.monotonic() + 20
        while (
            sum(row["phase"] == "ready" and row["pid"] > 0 for row in sup.stats()["f"]["workers"]) != self._config.size
        ):
            assert time.monotonic() < deadline, "the pool did not come back to its size"
            threading.Event().wait(0.01)
