"""Chaos: deadlines and cancels wherever a call may be, at `concurrency` 1 and 8 (RULES K, scorecard 10 to 12)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from dspex.errors import CallCancelled, CallTimeout
from dspex.pools.supervisor import Supervisor
from tests.support.chaos.callers import unharmed, use_tools
from tests.support.supervisors import Supervise
from tests.support.waiting import Caller, Gate, all_ready, eventually, pids

GRACE = 1.0
BOUND = 3.0  # seconds from the deadline or cancel until the caller is free; milliseconds by design

# where the call is: command, arguments, whether the worker can be kept at concurrency 1 and at 8
PLACES: dict[str, tuple[str, dict[str, Any], bool, bool]] = {
    "python": ("spin", {"seconds": 60.0}, True, True),
    "a sleep": ("sleep", {"seconds": 60.0}, True, False),
    "C with the GIL": ("spin_c", {"seconds": 60.0}, False, False),
    "C without the GIL": ("spin_free", {"seconds": 60.0}, False, False),
    "deaf code": ("swallow", {"seconds": 60.0}, False, False),
    "a plain tool": ("ask", {"name": "blocked", "arguments": {}}, True, True),
    "an async tool": ("ask", {"name": "patient", "arguments": {}}, True, True),
    "a tool's stream": ("ask_stream", {"name": "endless", "arguments": {}}, True, True),
    "a stream": ("count", {"n": 1_000_000_000}, True, True),
    "a slow stream": ("count", {"n": 1_000_000, "delay_s": 0.02}, True, True),
}


class Tools:
    """The host's side: tools that never answer by themselves; all that `began` must have `ended`."""

    def __init__(self, sup: Supervisor) -> None:
        self.began = 0
        self.ended = 0
        self.release = threading.Event()
        sup.register("blocked", self._blocked)
        sup.register("patient", self._patient)
        sup.register("endless", self._endless)

    def _blocked(self, request: Any) -> None:
        assert self.release.wait(60)

    async def _patient(self, request: Any) -> None:
        self.began += 1
        try:
            await asyncio.sleep(600)
        finally:
            self.ended += 1

    async def _endless(self, request: Any) -> Any:
        self.began += 1
        try:
            n = 0
            while True:
                yield n
                n += 1
                await asyncio.sleep(0)
        finally:
            self.ended += 1


def _by_deadline(sup: Supervisor, command: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(CallTimeout) as caught:
        sup.call("f", command, arguments, timeout=0.2)
    assert caught.value.phase == "running"


def _by_awaited_deadline(sup: Supervisor, command: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(CallTimeout):
        asyncio.run(sup.acall("f", command, arguments, timeout=0.2))


def _by_stream_deadline(sup: Supervisor, command: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(CallTimeout):
        for _ in sup.stream("f", command, arguments, timeout=0.2):
            pass


def _by_task(sup: Supervisor, command: str, arguments: dict[str, Any]) -> None:
    async def run() -> None:
        task = asyncio.create_task(sup.acall("f", command, arguments))
        await asyncio.to_thread(_wait_until_running, sup)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


def _by_thread(sup: Supervisor, command: str, arguments: dict[str, Any]) -> None:
    cancels: list[Callable[[], None]] = []

    def remember(cancel: Callable[[], None]) -> Callable[[], None]:
        cancels.append(cancel)
        return lambda: None

    caller = Caller(sup.pool("f").invoke, command, arguments, cancel=remember)
    _wait_until_running(sup)
    eventually(lambda: cancels)[0]()
    with pytest.raises(CallCancelled):
        caller.outcome(BOUND).result()


def _by_closing(sup: Supervisor, command: str, arguments: dict[str, Any]) -> None:
    with sup.stream("f", command, arguments) as stream:
        _wait_until_running(sup)
    assert list(stream) == []


def _wait_until_running(sup: Supervisor) -> None:
    eventually(lambda: sup.stats()["f"]["in_flight"] > 0, what="it runs")


WAYS = [_by_deadline, _by_awaited_deadline, _by_stream_deadline, _by_task, _by_thread, _by_closing]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_call_can_be_left_wherever_it_is(supervise: Supervise, seeded: Random, place: str, concurrency: int) -> None:
    """Chaos (K0 to K4): however it is left: the caller is free at once, the slot comes back, the next is served."""
    command, arguments, *is_kept_at = PLACES[place]
    is_kept = is_kept_at[concurrency == 8]
    sup = supervise(size=1, concurrency=concurrency, cancel_grace=GRACE)
    tools = Tools(sup)
    use_tools(sup)
    for leave in WAYS if is_kept else seeded.sample(WAYS, 2):
        with unharmed(sup, 1):
            before = pids(sup)
            began = time.monotonic()
            leave(sup, command, arguments)
            assert time.monotonic() - began < BOUND
            # Idempotent, as it may be sent to the worker just before that is killed.
            assert sup.call("f", "echo", {"after": place}, timeout=20, idempotent=True) == {"after": place}
            tools.release.set()
        tools.release.clear()
        assert (pids(sup) == before) == is_kept, leave.__name__
    eventually(lambda: tools.began == tools.ended, what="every tool was told to stop")
    assert tools.ended > 0 or place not in ("an async tool", "a tool's stream")


@pytest.mark.parametrize("concurrency", [1, 8])
def test_queued_calls_can_be_left(supervise: Supervise, concurrency: int) -> None:
    """Chaos (scorecard 12): by deadline, by task, by thread and by closing: none is ever sent."""
    sup = supervise(size=1, concurrency=concurrency, cancel_grace=GRACE)
    with Gate(sup) as gate:
        blocking = [Caller(sup.call, *gate.command) for _ in range(concurrency)]
        gate.wait_for(concurrency)
        for timeout in (0.05, 0.2):
            with pytest.raises(CallTimeout) as caught:
                sup.call(*gate.command, timeout=timeout)
            assert caught.value.phase == "queued"
        with sup.stream(*gate.command):
            assert sup.stats()["f"]["queued"] == 1
        assert sup.stats()["f"]["queued"] == 0

        async def cancel() -> None:
            task = asyncio.create_task(sup.acall(*gate.command))
            await asyncio.sleep(0)
            assert sup.stats()["f"]["queued"] == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(cancel())
        eventually(lambda: sup.stats()["f"]["queued"] == 0)
        gate.open()
        for caller in blocking:
            caller.outcome()
    assert len(gate.arrived) == concurrency


@pytest.mark.parametrize("place", ["C without the GIL", "a sleep", "deaf code"])
def test_neighbours_of_a_stuck_call_end_by_themselves(supervise: Supervise, place: str) -> None:
    """Chaos (K3): seven calls in the same worker go on to their own end, and calls in others are not touched."""
    command, arguments, *_ = PLACES[place]
    sup = supervise(size=2, concurrency=8, cancel_grace=GRACE)
    all_ready(sup, 2)
    with Gate(sup) as gate:
        neighbors = [Caller(sup.call, *gate.command) for _ in range(14)]
        gate.wait_for(14)
        with pytest.raises(CallTimeout):
            sup.call("f", command, arguments, timeout=0.1)
        eventually(lambda: any(w["phase"] == "retiring" for w in sup.stats()["f"]["workers"]), what="it retires")
        assert sup.call("f", "echo", {"n": 1}) == {"n": 1}
        assert all(neighbor.is_alive() for neighbor in neighbors)
        gate.open()
        assert sorted({neighbor.outcome() for neighbor in neighbors}) == ["f/0", "f/1"]
    all_ready(sup, 2)


@pytest.mark.parametrize("concurrency", [1, 8])
def test_an_interrupt_never_hits_the_next_call(supervise: Supervise, seeded: Random, concurrency: int) -> None:
    """Chaos (C15, C7): calls that end about when their cancel arrives; the calls after them are never interrupted."""
    sup = supervise(size=1, concurrency=concurrency, cancel_grace=30.0)
    before = pids(sup)
    expired = 0
    for n in range(60):
        seconds = 0.1 + seeded.uniform(-0.004, 0.006)  # the first interrupt comes 0.1 s after the cancel
        try:
            sup.call("f", "spin", {"seconds": seconds}, timeout=0.001)
        except CallTimeout:
            expired += 1
        assert sup.call("f", "spin", {"seconds": 0.001}, timeout=20) >= 0
        assert sup.call("f", "echo", {"n": n}) == {"n": n}
    assert expired == 60
    assert pids(sup) == before


def test_a_cancel_of_a_finished_call_is_harmless(supervise: Supervise) -> None:
    """Chaos (C7): closing, cancelling and collecting what has ended already changes nothing."""
    sup = supervise(size=1)
    with unharmed(sup, 1):
        for _ in range(200):
            stream = sup.stream("f", "count", {"n": 3})
            assert list(stream) == [0, 1, 2]
            stream.close()
            del stream
        call = sup.pool("f").invoke("echo", {"n": 1})
        sup.pool("f")._caller.cancel(call)
        sup.pool("f")._caller.abandon(call)
        assert call.result() == {"n": 1}
    assert sup.stats()["f"]["counts"]["cancelled"] == 0


def test_closed_loops_and_gone_tasks_under_load_leave_no_slot_taken(supervise: Supervise, seeded: Random) -> None:
    """Chaos (C10): loops that end with calls in flight, thirty times, and calls in between."""
    sup = supervise(size=2)

    async def leave_early() -> None:
        tasks = [asyncio.create_task(sup.acall("f", "spin", {"seconds": 0.05})) for _ in range(4)]
        await asyncio.sleep(seeded.uniform(0, 0.01))
        del tasks

    with unharmed(sup, 2):
        for n in range(30):
            asyncio.run(leave_early())
            assert sup.call("f", "echo", {"n": n}) == {"n": n}
