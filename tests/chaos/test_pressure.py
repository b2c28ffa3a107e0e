"""Chaos: more than fits: full pipes, full queues, slow readers; nobody else is held up and nothing grows."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
import tracemalloc
from pathlib import Path
from random import Random

import pytest

from dspex.errors import CallTimeout, PoolSaturated
from dspex.pools.supervisor import Supervisor
from dspex_worker.memory.procfs import rss_of
from tests.support.chaos.callers import Company, unharmed, use_tools
from tests.support.supervisors import Supervise
from tests.support.waiting import Caller, Gate, eventually, freeze, lines, pids

MIB = 1024 * 1024


def test_a_worker_that_does_not_read_does_not_grow_the_host(supervise: Supervise, seeded: Random) -> None:
    """Chaos (scorecard 19): 1 MB calls to a stopped worker: the queue's limit holds, and so does the host's memory."""
    sup = supervise(size=1, concurrency=2, queue_limit=8)
    blob = seeded.randbytes(MIB)
    with unharmed(sup, 1):
        (worker,) = pids(sup)
        freeze(worker)
        waiting = [Caller(sup.call, "f", "echo", {"n": n, "blob": blob}, timeout=60) for n in range(10)]
        eventually(lambda: sup.stats()["f"]["queued"] == 8)
        before = rss_of(os.getpid())
        for _ in range(100):
            with pytest.raises(PoolSaturated):
                sup.call("f", "echo", {"blob": blob})
        grown = rss_of(os.getpid()) - before
        os.kill(worker, signal.SIGCONT)
        assert [caller.outcome(60)["n"] for caller in waiting] == list(range(10))
    print(f"grown by {grown / MIB:.1f} MiB over 100 refused calls of 1 MiB")
    assert grown < 20 * MIB


def test_ten_thousand_queued_calls_leave_in_order(supervise: Supervise, tmp_path: Path) -> None:
    """Chaos (scorecard 20): 9,000 of 10,000 tasks are cancelled in the queue; the others run first in, first out."""
    sup = supervise(size=1, concurrency=1, queue_limit=20_000)
    effects = tmp_path / "effects"

    async def run() -> tuple[float, list[object]]:
        blocking = asyncio.create_task(sup.acall(*gate.command))
        await asyncio.to_thread(gate.wait_for, 1)
        calls = [sup.acall("f", "effect", {"path": str(effects), "token": str(n)}, timeout=100) for n in range(10_000)]
        tasks = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0)
        assert sup.stats()["f"]["queued"] == 10_000
        doomed = [task for n, task in enumerate(tasks) if n % 10]
        began = time.monotonic()
        for task in doomed:
            task.cancel()
        await asyncio.wait(doomed)
        await asyncio.to_thread(eventually, lambda: sup.stats()["f"]["queued"] == 1000)
        seconds = time.monotonic() - began
        gate.open()
        await blocking
        return seconds, await asyncio.gather(*tasks, return_exceptions=True)

    use_tools(sup)
    with unharmed(sup, 1), Gate(sup) as gate:
        seconds, results = asyncio.run(run())
    print(f"9,000 tasks cancelled in {seconds * 1000:.0f} ms")
    assert [int(token) for token in lines(effects)] == list(range(0, 10_000, 10))
    assert sum(isinstance(result, asyncio.CancelledError) for result in results) == 9000
    assert sum(result is None for result in results) == 1000
    assert seconds < 5.0


def test_what_a_queued_call_takes(supervise: Supervise) -> None:
    """Chaos (scorecard 20, C1): at most 2 KB for each of 10,000, beyond its bytes; 9,000 are given up in an instant."""
    sup = supervise(size=1, concurrency=1, queue_limit=20_000)
    pool = sup.pool("f")
    use_tools(sup)
    with unharmed(sup, 1), Gate(sup) as gate:
        blocking = Caller(sup.call, *gate.command)
        gate.wait_for(1)
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        calls = [pool._caller.make("echo", {"n": n}, {"timeout": 100.0}) for n in range(10_000)]
        for call in calls:
            call.wait_in_thread()
            pool._dispatcher.submit(call)
        held = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        each = (held - sum(len(call.frame) for call in calls)) / len(calls)
        assert sup.stats()["f"]["queued"] == 10_000
        began = time.monotonic()
        for call in calls[:9000]:
            pool._caller.abandon(call)
        seconds = time.monotonic() - began
        assert sup.stats()["f"]["queued"] == 1000
        gate.open()
        blocking.outcome()
        for call in calls[9000:]:
            assert call.lock is not None
            assert call.lock.acquire(timeout=20)
    print(f"{each:.0f} bytes beyond those of its frame; 9,000 given up in {seconds * 1000:.0f} ms")
    assert each < 2048
    assert seconds < 2.0


def test_queued_calls_that_expire_are_dropped_unsent(supervise: Supervise, tmp_path: Path) -> None:
    """Chaos (scorecard 20): 2,000 deadlines pass in the queue; none of these calls ever runs, those after them do."""
    sup = supervise(size=1, concurrency=1, queue_limit=5000)
    effects = tmp_path / "effects"

    async def run() -> list[object]:
        blocking = asyncio.create_task(sup.acall(*gate.command))
        await asyncio.to_thread(gate.wait_for, 1)
        hurried = [sup.acall("f", "effect", {"path": str(effects), "token": "late"}, timeout=0.2) for _ in range(2000)]
        patient = [sup.acall("f", "effect", {"path": str(effects), "token": "kept"}, timeout=60) for _ in range(20)]
        tasks = [asyncio.ensure_future(call) for call in (*hurried, *patient)]
        await asyncio.wait(tasks[:2000])
        gate.open()
        await blocking
        return await asyncio.gather(*tasks, return_exceptions=True)

    use_tools(sup)
    with unharmed(sup, 1), Gate(sup) as gate:
        results = asyncio.run(run())
    assert all(isinstance(result, CallTimeout) and result.phase == "queued" for result in results[:2000])
    assert results[2000:] == [None] * 20
    assert lines(effects) == ["kept"] * 20


@pytest.mark.parametrize(("concurrency", "limit"), [(1, 20), (4, 40)])
def test_retry_after_is_about_what_it_takes(supervise: Supervise, concurrency: int, limit: int) -> None:
    """Chaos (DESIGN §6): whoever waits that long finds a place: the estimate beside the time that really passed."""
    sup = supervise(size=1, concurrency=concurrency, queue_limit=limit)
    is_over = threading.Event()

    def fill() -> None:
        while not is_over.is_set():
            try:
                sup.call("f", "sleep", {"seconds": 0.05}, timeout=30)
            except PoolSaturated as full:
                is_over.wait(full.retry_after)

    callers = [Caller(fill) for _ in range(limit + concurrency + 10)]
    estimates = []
    eventually(lambda: _answered(sup) > 4 * concurrency)
    began, answered = time.monotonic(), _answered(sup)
    for _ in range(6):
        estimate = eventually(lambda: _saturation(sup), what="the queue is full")
        eventually(lambda: sup.stats()["f"]["queued"] < limit, what="a place")
        estimates.append(estimate)
    each = (time.monotonic() - began) / max(1, _answered(sup) - answered)  # a busy machine takes longer than they sleep
    is_over.set()
    for caller in callers:
        caller.outcome(30)
    ratios = [estimate / each for estimate in estimates]
    print(f"retry_after / the time between two places: {sorted(round(ratio, 2) for ratio in ratios)}")
    assert 0.3 < sorted(ratios)[len(ratios) // 2] < 4.0


def _answered(sup: Supervisor) -> int:
    return sup.stats()["f"]["counts"]["answered"]


def _saturation(sup: object) -> float:
    try:
        sup.call("f", "ping", timeout=0.0)  # type: ignore[attr-defined]
    except PoolSaturated as full:
        return full.retry_after
    except CallTimeout:
        pass
    return 0.0


def test_a_slow_reader_holds_up_only_its_own_stream(supervise: Supervise, seeded: Random) -> None:
    """Chaos (scorecard 21): eight streams that nobody reads, in the workers that serve 64 callers; memory stays."""
    sup = supervise(size=2, concurrency=8)
    with unharmed(sup, 2), Company(sup, seeded) as company:
        streams = [sup.stream("f", "count", {"n": 1_000_000}, timeout=60) for _ in range(4)]
        for stream in streams:
            assert next(stream) == 0
        before = rss_of(os.getpid())
        company.goes_on(2000)
        assert rss_of(os.getpid()) - before < 20 * MIB
        assert all(stream._buffer._chunks.qsize() <= 16 for stream in streams)
        for stream in streams:
            assert [next(stream) for _ in range(100)] == list(range(1, 101))
            stream.close()
    assert company.errors == []


def test_a_slow_tool_stream_is_held_back_by_its_command(supervise: Supervise) -> None:
    """Chaos (scorecard 21), the other way: the host's generator runs at most its credit ahead of a slow command."""
    sup = supervise(size=1)
    made = 0

    async def numbers(request: object) -> object:
        nonlocal made
        for n in range(100_000):
            made = n
            yield n

    sup.register("numbers", numbers)
    stream = sup.stream("f", "ask_stream", {"name": "numbers", "arguments": {}}, timeout=60)
    with stream:
        for expected in range(50):
            assert next(stream) == expected
        settled = eventually(lambda: _steady(lambda: made), what="it is held back")
        assert settled <= 50 + 3 * 16
        assert sup.call("f", "echo", {"n": 1}) == {"n": 1}


def _steady(look: object) -> int:
    first = look()  # type: ignore[operator]
    threading.Event().wait(0.1)
    return first if first == look() else 0  # type: ignore[operator]
