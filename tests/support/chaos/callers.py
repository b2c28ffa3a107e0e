"""The company of a fault: 64 callers of one pool, who check what they get and note what they hear."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from random import Random
from typing import Any

from dspex.errors import DspexError
from dspex.pools.supervisor import Supervisor
from tests.support.chaos.resources import Holdings
from tests.support.waiting import eventually

IN_FLIGHT = 64


class Company(threading.Thread):
    """Calls until it is told to stop; `errors` is what callers heard, `wrong` what must not be."""

    def __init__(self, sup: Supervisor, random: Random, *, pool: str = "f", timeout: float = 30.0) -> None:
        super().__init__(daemon=True)
        self.answers = 0
        self.errors: list[DspexError] = []
        self.wrong: list[str] = []
        self.seconds: list[float] = []  # how long each answer took
        self._sup = sup
        self._pool = pool
        self._timeout = timeout
        self._seeds = [random.randrange(1 << 30) for _ in range(IN_FLIGHT)]
        self._is_over = threading.Event()
        self._failure: BaseException | None = None

    def __enter__(self) -> Company:
        self.start()
        eventually(lambda: self.answers > IN_FLIGHT or not self.is_alive(), what="company is there")
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self.join(60)
        assert not self.is_alive(), "company does not end: a call hangs"
        assert self._failure is None, repr(self._failure)
        assert self.wrong == []

    def run(self) -> None:
        try:
            asyncio.run(self._all())
        except BaseException as error:
            self._failure = error

    def goes_on(self, answers: int = 500) -> None:
        """Wait until it got so many answers more."""
        enough = self.answers + answers
        eventually(lambda: self.answers >= enough or not self.is_alive(), within=60, what="company goes on")

    def heard(self) -> Counter[str]:
        """How often callers heard what, by class."""
        return Counter(type(error).__name__ for error in self.errors)

    async def _all(self) -> None:
        await asyncio.gather(*[self._call(n, Random(seed)) for n, seed in enumerate(self._seeds)])

    async def _call(self, number: int, random: Random) -> None:
        turn = 0
        while not self._is_over.is_set():
            turn += 1
            sent = {"from": number, "turn": turn, "text": "x" * random.randrange(300)}
            began = time.monotonic()
            try:
                answer: Any = await self._sup.acall(self._pool, "echo", sent, timeout=self._timeout)
            except DspexError as error:
                self.errors.append(error)
                continue
            self.seconds.append(time.monotonic() - began)
            self.answers += 1
            if answer != sent:
                self.wrong.append(f"{sent} echoed {answer!r:.100}")


class Killer(threading.Thread):
    """Kills a random worker every `every` seconds until it is left."""

    def __init__(self, sup: Supervisor, random: Random, every: float, *, pool: str = "f") -> None:
        super().__init__(daemon=True)
        self.kills = 0
        self._plan = (sup, random, every, pool)
        self._is_over = threading.Event()

    def __enter__(self) -> Killer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self.join()

    def run(self) -> None:
        sup, random, every, pool = self._plan
        while not self._is_over.wait(random.uniform(0.5, 1.5) * every):
            rows = sup.stats()[pool]["workers"]
            living = [row["pid"] for row in rows if row["phase"] == "ready" and row["pid"]]
            if living:
                with suppress(ProcessLookupError):
                    os.kill(random.choice(living), signal.SIGKILL)
                    self.kills += 1


@contextmanager
def unharmed(sup: Supervisor, size: int, *, pool: str = "f") -> Iterator[None]:
    """After the block the pool is whole and idle again, and the host holds no more than before it.

    Threads that answer tools are made at need and kept: see `use_tools`.
    """
    _settle(sup, size, pool)
    before = Holdings.now()
    yield
    _settle(sup, size, pool)
    eventually(lambda: _no_more(before, Holdings.now()), what=f"{before} is all that is held; now {Holdings.now()}")


def use_tools(sup: Supervisor, *, pool: str = "f") -> None:
    """Make the thread and the loop that answer tools: they stay, and are no growth."""

    async def nothing(request: Any) -> None:
        return None

    sup.register("plain", lambda request: None)
    sup.register("async", nothing)
    for name in ("plain", "async"):
        sup.call(pool, "ask", {"name": name, "arguments": {}})


def _no_more(before: Holdings, now: Holdings) -> bool:
    names = ("descriptors", "threads", "children", "zombies")
    return all(getattr(now, name) <= getattr(before, name) for name in names)


def _settle(sup: Supervisor, size: int, pool: str) -> None:
    def is_settled() -> bool:
        stats = sup.stats()[pool]
        rows = stats["workers"]
        is_whole = len(rows) == size and all(row["phase"] == "ready" and row["pid"] for row in rows)
        return is_whole and not stats["queued"] and not stats["in_flight"]

    eventually(is_settled, within=30, what=f"{size} idle workers: {sup.stats()[pool]}")
