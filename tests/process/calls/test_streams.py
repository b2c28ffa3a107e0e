"""Process: streams arrive in order and piece by piece, end when either side ends them, and hold nobody else up."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading

import pytest

from dspex.errors import PoolSaturated, RemoteError, UnknownName, WorkerDied
from dspex.pools.call import Call
from dspex.pools.streams import AsyncStream, Stream, StreamBuffer
from tests.support.supervisors import Supervise
from tests.support.waiting import Caller, Gate, eventually, pids


def test_chunks_come_in_order_and_then_the_value(supervise: Supervise) -> None:
    """Process: a thousand chunks, whatever the credit; `.value` is what the command returned."""
    sup = supervise(size=1)
    stream = sup.stream("f", "count", {"n": 1000})
    assert list(stream) == list(range(1000))
    assert stream.value == 1000
    assert list(stream) == []


def test_chunks_come_as_they_are_made(supervise: Supervise) -> None:
    """Process (T66): the first arrives while the command still runs."""
    sup = supervise(size=1)
    with sup.stream("f", "count", {"n": 1000, "delay_s": 0.05}) as stream:
        assert next(stream) == 0
        assert stream.worker == "f/0"
        assert sup.stats()["f"]["in_flight"] == 1
    eventually(lambda: sup.stats()["f"]["in_flight"] == 0)


def test_an_asynchronous_stream(supervise: Supervise) -> None:
    """Process: `async for`, and `.value` afterwards."""
    sup = supervise(size=1)

    async def run() -> tuple[list[int], int]:
        stream = sup.astream("f", "count", {"n": 500})
        return [chunk async for chunk in stream], stream.value

    assert asyncio.run(run()) == (list(range(500)), 500)


def test_closing_a_stream_ends_its_command(supervise: Supervise) -> None:
    """Process (K1): the generator is closed in the worker, the slot comes back, the worker stays."""
    sup = supervise(size=1, cancel_grace=10.0)
    before = pids(sup)
    stream = sup.stream("f", "count", {"n": 10_000_000})
    assert next(stream) == 0
    stream.close()
    eventually(lambda: sup.stats()["f"]["in_flight"] == 0, within=5)
    assert pids(sup) == before
    assert list(stream) == []


def test_leaving_an_asynchronous_stream_ends_its_command(supervise: Supervise) -> None:
    """Process: `async with` and a break."""
    sup = supervise(size=1, cancel_grace=10.0)

    async def run() -> None:
        async with sup.astream("f", "count", {"n": 10_000_000}) as stream:
            async for chunk in stream:
                if chunk == 40:
                    break

    asyncio.run(run())
    eventually(lambda: sup.stats()["f"]["in_flight"] == 0, within=5)


def test_a_forgotten_stream_is_given_up_by_its_finalizer(supervise: Supervise) -> None:
    """Process (C11): dropping the last reference frees the slot, without taking a lock."""
    sup = supervise(size=1, cancel_grace=10.0)
    stream = sup.stream("f", "count", {"n": 10_000_000})
    next(stream)
    del stream
    gc.collect()
    eventually(lambda: sup.stats()["f"]["in_flight"] == 0, within=5)


def test_a_stream_nobody_reads_ends_at_its_deadline(supervise: Supervise) -> None:
    """Process: a consumer that never comes back holds its slot no longer than its deadline."""
    sup = supervise(size=1, cancel_grace=10.0)
    stream = sup.stream("f", "count", {"n": 10_000_000}, timeout=0.3)
    next(stream)
    eventually(lambda: sup.stats()["f"]["in_flight"] == 0, within=5)
    with pytest.raises(TimeoutError):
        list(stream)


def test_a_slow_consumer_stops_only_its_own_stream(supervise: Supervise) -> None:
    """Process (scorecard 21): credit holds the worker's generator back; its neighbors flow."""
    sup = supervise(size=1)
    slow = sup.stream("f", "count", {"n": 1000})
    assert next(slow) == 0
    assert list(sup.stream("f", "count", {"n": 5000})) == list(range(5000))
    assert slow._buffer._chunks.qsize() <= 16
    assert list(slow) == list(range(1, 1000))


def test_many_streams_at_once(supervise: Supervise) -> None:
    """Process: 32 streams on 2 workers, each whole and in order."""
    sup = supervise(size=2)
    callers = [Caller(lambda: list(sup.stream("f", "count", {"n": 300}))) for _ in range(32)]
    assert all(caller.outcome(60) == list(range(300)) for caller in callers)


def test_an_error_in_the_middle_comes_after_the_chunks(supervise: Supervise) -> None:
    """Process: what was sent before the exception arrives before it."""
    sup = supervise(size=1)
    taken = []
    with pytest.raises(RemoteError, match="ValueError"):
        for chunk in sup.stream("f", "count_then_raise", {"n": 3}):
            taken.append(chunk)  # noqa: PERF402 - an exception ends it
    assert taken == [0, 1, 2]


def test_a_death_in_the_middle_comes_after_the_chunks(supervise: Supervise) -> None:
    """Process (C9): WorkerDied ends the stream."""
    sup = supervise(size=1)
    stream = sup.stream("f", "count", {"n": 1000, "delay_s": 0.02})
    assert next(stream) == 0
    os.kill(pids(sup)[0], signal.SIGKILL)
    with pytest.raises(WorkerDied):
        list(stream)


def test_a_command_that_does_not_stream_is_a_stream_of_nothing(supervise: Supervise) -> None:
    """Process: its result is the value."""
    sup = supervise(size=1)
    stream = sup.stream("f", "echo", {"a": 1})
    assert list(stream) == []
    assert stream.value == {"a": 1}


def test_a_streaming_command_that_is_called_gives_its_value(supervise: Supervise) -> None:
    """Process: `call` wants no chunks, and none are sent."""
    sup = supervise(size=1)
    assert sup.call("f", "count", {"n": 1000}) == 1000


def test_an_unknown_stream_is_refused_at_once(supervise: Supervise) -> None:
    """Process: UnknownName before anything is sent."""
    sup = supervise(size=1)
    with pytest.raises(UnknownName):
        sup.stream("f", "cuont", {"n": 1})


def test_a_refused_stream_raises_when_it_is_read(supervise: Supervise) -> None:
    """Process: a full queue ends the stream with PoolSaturated, and does not hang."""
    sup = supervise(size=1, concurrency=1, queue_limit=1)
    with Gate(sup) as gate:
        callers = [Caller(sup.call, *gate.command)]
        gate.wait_for(1)
        callers.append(Caller(sup.call, "f", "ping"))
        eventually(lambda: sup.stats()["f"]["queued"] == 1)
        with pytest.raises(PoolSaturated):
            list(sup.stream("f", "count", {"n": 1}))
        gate.open()
        for caller in callers:
            caller.outcome()


class AtTheLastMoment:
    """What a stream asks of its pool, where the call's worker has answered just before its deadline."""

    def __init__(self, buffer: StreamBuffer) -> None:
        self._buffer = buffer

    def check_own_process(self) -> None:
        """This is the process."""

    def expire(self, call: Call) -> None:
        """The outcome is there already; the engine is about to wake who waits for it."""
        assert call.end(value="done")
        self._buffer.put("last")
        threading.Thread(target=call.wake).start()

    def abandon(self, call: Call) -> None:
        raise AssertionError("it has ended")

    abandon_later = abandon


@pytest.mark.parametrize("is_async", [False, True])
def test_a_stream_that_ends_at_its_deadline_is_read_to_its_end(is_async: bool) -> None:
    """Collaboration (C7): the outcome was there first, so the reader gets the last chunk and the value, no timeout."""
    call = Call(1, "count", frame=b"", arguments_start=0, arguments_end=0, timeout=0.0, made_at=0.0, deadline=0.0)

    async def read() -> list[str]:
        buffer = call.stream = StreamBuffer(asyncio.get_running_loop())
        return [chunk async for chunk in AsyncStream(call, buffer, _no_credit, AtTheLastMoment(buffer))]

    if is_async:
        assert asyncio.run(read()) == ["last"]
    else:
        buffer = call.stream = StreamBuffer(None)
        assert list(Stream(call, buffer, _no_credit, AtTheLastMoment(buffer))) == ["last"]
    assert call.value == "done"


def _no_credit(call: Call, count: int) -> None:
    """There is no worker that could send more."""
