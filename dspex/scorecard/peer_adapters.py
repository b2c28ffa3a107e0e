"""Adapters of the compared pools, each with its defaults and its documented interface. Imported late."""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar

from ..loop_thread import LoopThread
from . import fault_kinds
from .peers import Need, Peer, PeerLimits

NO_DEADLINE = {Need.DEADLINE: "no deadline", Need.QUEUE_DEADLINE: "no deadline"}
NO_LIMITS = {Need.MEMORY_CAP: "no memory cap", Need.QUEUE_LIMIT: "no bound on its queue"}
NO_CANCEL = {Need.CANCEL_RUNNING: "no cancel of running calls"}


class CoroutinePeer(Peer):
    """A pool whose calls are coroutines, on a loop that has ended when the interpreter exits."""

    def start(self, limits: PeerLimits, folder: Path) -> None:
        self._callers = LoopThread("callers", ends_at_exit=False)
        atexit.register(self._end)

    def settle(self) -> None:
        for _ in range(3):
            self._callers.submit(asyncio.sleep(0)).result()

    def _end(self) -> None:
        self._callers.stop()
        self._callers.join()


class Dspex(CoroutinePeer):
    """This pool, its defaults but for `concurrency`: 1, as the others have it."""

    def start(self, limits: PeerLimits, folder: Path) -> None:
        from .. import PoolConfig, Supervisor

        bridge = "faults"
        if not limits.can_boot:
            script = folder / "refusing_bridge.py"
            script.write_text(f"raise RuntimeError({fault_kinds.NO_BOOT!r})\n")
            bridge = str(script)
        settings: dict[str, Any] = {"memory_cap": limits.memory_cap}
        if limits.queue_limit is not None:
            settings["queue_limit"] = limits.queue_limit
        config = PoolConfig("scorecard", bridge=bridge, size=limits.workers, concurrency=1, **settings)
        self._pool = Supervisor(pools=[config]).start().pool("scorecard")
        super().start(limits, folder)

    def submit(self, fault: str, arguments: dict[str, Any], timeout: float | None) -> Future[Any]:
        return self._callers.submit(self._pool.acall(fault, arguments, timeout=timeout))


class StandardLibrary(Peer):
    """`concurrent.futures.ProcessPoolExecutor`, with the platform's default start method."""

    lacks: ClassVar[Mapping[Need, str]] = {**NO_DEADLINE, **NO_LIMITS, **NO_CANCEL}

    def start(self, limits: PeerLimits, folder: Path) -> None:
        from concurrent.futures import ProcessPoolExecutor

        self._executor = ProcessPoolExecutor(
            limits.workers, initializer=None if limits.can_boot else fault_kinds.refuse_to_boot
        )

    def submit(self, fault: str, arguments: dict[str, Any], timeout: float | None) -> Future[Any]:
        return self._executor.submit(fault_kinds.run, fault, arguments)


class Loky(Peer):
    """loky's reusable executor, asked for anew for each call as its documentation has it: a broken one is replaced."""

    distribution = "loky"
    lacks: ClassVar[Mapping[Need, str]] = {**NO_DEADLINE, **NO_LIMITS, **NO_CANCEL}

    def start(self, limits: PeerLimits, folder: Path) -> None:
        self._settings: dict[str, Any] = {
            "max_workers": limits.workers,
            "timeout": 60,
            "initializer": None if limits.can_boot else fault_kinds.refuse_to_boot,
        }

    def submit(self, fault: str, arguments: dict[str, Any], timeout: float | None) -> Future[Any]:
        from loky import get_reusable_executor  # pyright: ignore[reportMissingImports] - of the extra bench

        future: Future[Any] = get_reusable_executor(**self._settings).submit(fault_kinds.run, fault, arguments)
        return future


class Pebble(Peer):
    """pebble's ProcessPool."""

    distribution = "pebble"
    lacks: ClassVar[Mapping[Need, str]] = {**NO_LIMITS, Need.QUEUE_DEADLINE: "its timeout starts with the call"}

    def start(self, limits: PeerLimits, folder: Path) -> None:
        from pebble import ProcessPool  # pyright: ignore[reportMissingImports] - of the extra bench

        self._pool = ProcessPool(limits.workers, initializer=None if limits.can_boot else fault_kinds.refuse_to_boot)

    def submit(self, fault: str, arguments: dict[str, Any], timeout: float | None) -> Future[Any]:
        future: Future[Any] = self._pool.schedule(fault_kinds.run, args=[fault, arguments], timeout=timeout)
        return future


class AnyIO(CoroutinePeer):
    """`anyio.to_process.run_sync`, cancellable, under a limiter; its deadline is `anyio.fail_after`."""

    distribution = "anyio"
    lacks: ClassVar[Mapping[Need, str]] = {**NO_LIMITS, Need.BOOT_CODE: "no code at a worker's start"}

    def start(self, limits: PeerLimits, folder: Path) -> None:
        super().start(limits, folder)
        self._limiter = self._callers.submit(self._make_limiter(limits.workers)).result()

    async def _make_limiter(self, workers: int) -> Any:
        from anyio import CapacityLimiter

        return CapacityLimiter(workers)

    def submit(self, fault: str, arguments: dict[str, Any], timeout: float | None) -> Future[Any]:
        return self._callers.submit(self._run(fault, arguments, timeout))

    async def _run(self, fault: str, arguments: dict[str, Any], timeout: float | None) -> Any:
        from anyio import fail_after, to_process

        with fail_after(timeout):
            return await to_process.run_sync(fault_kinds.run, fault, arguments, cancellable=True, limiter=self._limiter)
