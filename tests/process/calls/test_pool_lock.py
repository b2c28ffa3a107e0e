"""Process: what happens under the pool's lock and the write lock, and what does not (C3, C4)."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from dspex.errors import CallTimeout, PoolClosed
from dspex.events import Bus
from dspex.pools.processes import channel, pipe_io
from dspex.pools.processes.channel import Channel
from dspex_worker.wire import messages
from tests.support.supervisors import Supervise
from tests.support.waiting import Caller, Gate, all_ready, eventually


class WatchedLock:
    """The pool's lock, which knows its holder."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self.holder: int | None = None

    def __enter__(self) -> None:
        self._lock.acquire()
        self.holder = threading.get_ident()

    def __exit__(self, *_: object) -> None:
        self.holder = None
        self._lock.release()


def test_nothing_slow_happens_under_the_pools_lock(supervise: Supervise, monkeypatch: pytest.MonkeyPatch) -> None:
    """Process (C3): no encoding of arguments, no writing, no event and no tool runs while a thread holds it."""
    sup = supervise(size=2, concurrency=2)
    lock = WatchedLock(sup.pool("f")._dispatcher.lock)
    sup.pool("f")._dispatcher.lock = lock  # type: ignore[assignment]
    broken: list[str] = []
    used: set[str] = set()

    def watched(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            used.add(what)
            if lock.holder == threading.get_ident():
                broken.append(what)
            return function(*args, **options)

        return call

    monkeypatch.setattr(pipe_io, "write", watched("write", pipe_io.write))
    monkeypatch.setattr(messages, "write_call", watched("encode", messages.write_call))
    monkeypatch.setattr(Bus, "emit", watched("emit", Bus.emit))
    sup.register("tool", watched("tool", lambda request: None))
    callers = [Caller(_everything, sup, n) for n in range(6)]
    for caller in callers:
        caller.outcome(60)
    os.kill(all_ready(sup, 2)[0], signal.SIGKILL)
    all_ready(sup, 2)
    assert used == {"write", "encode", "emit", "tool"}
    assert broken == []


def _everything(sup: Any, number: int) -> None:
    for n in range(20):
        assert sup.call("f", "echo", {"n": n}) == {"n": n}
        sup.call("f", "ask", {"name": "tool", "arguments": {}})
        assert list(sup.stream("f", "count", {"n": 5})) == list(range(5))
        with sup.session("f", f"{number}-{n}") as session:
            session.call("remember", {"key": "k", "value": n})
        with pytest.raises(CallTimeout):
            sup.call("f", "spin", {"seconds": 60}, timeout=0.001)


def test_closing_waits_for_the_writer_and_nobody_writes_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """collaboration (C4): a writer in the middle finishes first; later ones write to nobody's descriptor."""
    stdin_r, stdin_w = os.pipe()
    stdout_r, stdout_w = os.pipe()
    reader, writer = os.pipe()
    os.set_blocking(stdin_w, False)
    pipe = Channel(stdin_w, stdout_r, lambda wanted: None, lambda: None)
    inside, go_on = threading.Event(), threading.Event()
    write = pipe_io.write

    def slow(descriptor: int, data: bytes) -> int:
        inside.set()
        assert go_on.wait(10)
        return write(descriptor, data)

    monkeypatch.setattr(channel.pipe_io, "write", slow)
    pipe.append(b"first")
    writing = Caller(pipe.flush)
    assert inside.wait(10)
    closing = Caller(pipe.close)
    assert os.fstat(stdin_w)  # still open: the writer is inside
    go_on.set()
    writing.outcome()
    closing.outcome()
    assert os.read(stdin_r, 100) == b"first"
    taken = os.dup2(writer, stdin_w)  # whoever opens something next may get the number
    os.set_blocking(reader, False)
    pipe.append(b"second")
    pipe.flush()
    pipe.resume()
    with pytest.raises(BlockingIOError):
        os.read(reader, 100)
    for descriptor in {stdin_r, stdout_w, reader, writer, taken}:
        os.close(descriptor)


def test_a_finalizer_inside_the_critical_section_does_not_wait_for_itself(supervise: Supervise) -> None:
    """Process (C11): a collection that drops streams and calls while this very thread holds the pool's lock."""
    import asyncio

    sup = supervise(size=1)
    streams = [sup.stream("f", "count", {"n": 10_000_000}) for _ in range(3)]
    for stream in streams:
        next(stream)

    async def forgotten() -> None:
        streams.append(sup.astream("f", "count", {"n": 10_000_000}))  # type: ignore[arg-type]

    asyncio.run(forgotten())

    def collect() -> None:
        with sup.pool("f")._dispatcher.lock:
            streams.clear()
            gc.collect()

    del stream
    Caller(collect).outcome(10)
    eventually(lambda: sup.stats()["f"]["in_flight"] == 0, what="their slots came back")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_when_the_engine_dies_every_call_hears_it(supervise: Supervise) -> None:
    """Process (C12): calls in flight, queued ones and later ones get PoolClosed with the cause; nobody hangs."""
    sup = supervise(size=1, concurrency=1)
    with Gate(sup) as gate:
        running = Caller(sup.call, *gate.command)
        gate.wait_for(1)
        queued = Caller(sup.call, "f", "ping")
        stream = sup.stream("f", "count", {"n": 3})
        eventually(lambda: sup.stats()["f"]["queued"] == 2)

        def fail() -> None:
            raise RuntimeError("the engine's last words")

        sup._engine.call_soon(fail)
        for call in (running.outcome, queued.outcome, lambda: list(stream), lambda: sup.call("f", "ping")):
            with pytest.raises(PoolClosed, match="last words"):
                call()
        with pytest.raises(PoolClosed, match="last words"):
            sup.wait_ready()
        assert sup.health()["f"]["state"] == "closed" and not sup.health()["f"]["is_ready"]
