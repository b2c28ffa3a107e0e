"""Process: the same supervisor from threads, from `asyncio.run`, and from several loops; cancelling tasks."""

from __future__ import annotations

import asyncio
import threading

import pytest

from dspex.errors import CallTimeout, WorkerDied
from tests.support.supervisors import Supervise
from tests.support.waiting import Caller, Gate, eventually, pids


def test_a_thousand_awaited_calls_at_once(supervise: Supervise) -> None:
    """Process: each gets its own answer."""
    sup = supervise(size=2)

    async def run() -> list[dict[str, int]]:
        return await asyncio.gather(*[sup.acall("f", "echo", {"n": n}) for n in range(1000)])

    assert asyncio.run(run()) == [{"n": n} for n in range(1000)]


def test_one_supervisor_serves_many_loops_one_after_another(supervise: Supervise) -> None:
    """Process: a loop that is closed leaves nothing behind in the pool."""
    sup = supervise(size=1)
    for n in range(5):
        assert asyncio.run(sup.acall("f", "echo", {"n": n})) == {"n": n}
    assert sup.stats()["f"]["in_flight"] == 0


def test_loops_in_several_threads_and_plain_threads_together(supervise: Supervise) -> None:
    """Process: eight threads, half of them with a loop of their own."""
    sup = supervise(size=2)

    def plain(k: int) -> int:
        return sum(sup.call("f", "echo", {"n": n})["n"] for n in range(50))

    def looped(k: int) -> int:
        async def run() -> int:
            answers = await asyncio.gather(*[sup.acall("f", "echo", {"n": n}) for n in range(50)])
            return sum(answer["n"] for answer in answers)

        return asyncio.run(run())

    callers = [Caller(plain if k % 2 else looped, k) for k in range(8)]
    assert [caller.outcome() for caller in callers] == [1225] * 8


def test_a_blocking_call_inside_a_running_loop_works(supervise: Supervise) -> None:
    """Process: it blocks the loop, as it says, and is no deadlock."""
    sup = supervise(size=1)

    async def run() -> dict[str, int]:
        return sup.call("f", "echo", {"n": 1})

    assert asyncio.run(run()) == {"n": 1}


def test_a_cancelled_task_cancels_its_call(supervise: Supervise) -> None:
    """Process (DESIGN §6): CancelledError at once; the worker is told, stays, and its slot comes back."""
    sup = supervise(size=1, cancel_grace=10.0)
    before = pids(sup)
    with Gate(sup) as gate:

        async def run() -> None:
            task = asyncio.create_task(sup.acall(*gate.command))
            await asyncio.to_thread(gate.wait_for, 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(run())
        eventually(lambda: sup.stats()["f"]["in_flight"] == 0, within=5)
    assert pids(sup) == before
    assert sup.stats()["f"]["counts"]["cancelled"] == 1


def test_a_cancelled_queued_call_is_never_sent(supervise: Supervise) -> None:
    """Process (DESIGN §6): it leaves the queue and no worker sees it."""
    sup = supervise(size=1, concurrency=1)
    with Gate(sup) as gate:

        async def run() -> None:
            first = asyncio.create_task(sup.acall(*gate.command))
            await asyncio.to_thread(gate.wait_for, 1)
            second = asyncio.create_task(sup.acall(*gate.command))
            await asyncio.to_thread(eventually, lambda: sup.stats()["f"]["queued"] == 1)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            await asyncio.to_thread(eventually, lambda: sup.stats()["f"]["queued"] == 0)
            gate.open()
            await first

        asyncio.run(run())
    assert len(gate.arrived) == 1


def test_asyncio_timeouts_work(supervise: Supervise) -> None:
    """Process: `asyncio.timeout` around a call, and the call's own timeout."""
    sup = supervise(size=1, cancel_grace=0.2)

    async def run() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await sup.acall("f", "sleep", {"seconds": 30})
        with pytest.raises(CallTimeout):
            await sup.acall("f", "spin", {"seconds": 30}, timeout=0.1)

    asyncio.run(run())


def test_a_loop_that_ends_in_the_middle_costs_nothing(supervise: Supervise) -> None:
    """Process (C10): its calls count as abandoned; others of the same batch are resolved."""
    sup = supervise(size=1, cancel_grace=5.0)
    with Gate(sup) as gate:

        async def run() -> None:
            _tasks.extend(asyncio.ensure_future(sup.acall(*gate.command)) for _ in range(3))
            await asyncio.to_thread(gate.wait_for, 3)

        _tasks: list[asyncio.Future[object]] = []
        asyncio.run(run())  # cancels what still runs as it ends
        survivor = Caller(sup.call, *gate.command)
        gate.wait_for(4)
        gate.open()
        assert survivor.outcome() == "f/0"
    eventually(lambda: sup.stats()["f"]["in_flight"] == 0)


def test_a_loop_that_is_stopped_and_never_runs_again_holds_no_slot(supervise: Supervise) -> None:
    """Process (C10): the slot is free before any loop is woken."""
    sup = supervise(size=1, concurrency=1)
    loop = asyncio.new_event_loop()
    task = loop.create_task(sup.acall("f", "echo", {"n": 1}))
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert sup.call("f", "echo", {"n": 2}, timeout=10) == {"n": 2}
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()


def test_one_cancelled_neighbour_does_not_hold_the_others(supervise: Supervise) -> None:
    """Process (C10): half of a batch is cancelled while its answers arrive."""
    sup = supervise(size=2)

    async def run() -> None:
        for _ in range(20):
            tasks = [asyncio.create_task(sup.acall("f", "echo", {"n": n})) for n in range(40)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            answers = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
            assert [answers[n] for n in range(1, 40, 2)] == [{"n": n} for n in range(1, 40, 2)]

    asyncio.run(run())
    eventually(lambda: sup.stats()["f"]["in_flight"] == 0)


def test_a_death_is_raised_where_it_is_awaited(supervise: Supervise) -> None:
    """Process: errors come through `acall` as through `call`."""
    sup = supervise(size=1)

    async def run() -> None:
        with pytest.raises(WorkerDied):
            await sup.acall("f", "exit", {"code": 1})

    asyncio.run(run())


def test_the_supervisor_as_an_asynchronous_context(supervise: Supervise) -> None:
    """Process: `async with` starts it, and stops it without blocking the loop."""
    sup = supervise(start=False)

    async def run() -> dict[str, int]:
        async with sup:
            return await sup.acall("f", "echo", {"n": 1})

    assert asyncio.run(run()) == {"n": 1}


def test_stop_from_another_thread_with_calls_in_flight(supervise: Supervise) -> None:
    """Process (scorecard 36): running calls get their grace, then PoolClosed or a death; twice does no harm."""
    others = set(threading.enumerate())
    sup = supervise(size=1, cancel_grace=0.2)
    with Gate(sup) as gate:
        callers = [Caller(sup.call, *gate.command) for _ in range(3)]
        gate.wait_for(3)
        stopping = [Caller(sup.stop, grace=0.2) for _ in range(2)]
        for caller in stopping:
            caller.outcome()
        for caller in callers:
            with pytest.raises(Exception):  # noqa: B017 - each must end, whichever way
                caller.outcome()
        gate.open()
    eventually(lambda: not [t for t in threading.enumerate() if t.name == "dspex-engine" and t not in others])


def test_a_hundred_starts_and_stops_leave_nothing(supervise: Supervise) -> None:
    """Process (scorecard 37): ten rounds here; descriptors, threads and children are checked by the fixture."""
    for _ in range(10):
        sup = supervise(size=1)
        sup.call("f", "ping")
        sup.stop()
