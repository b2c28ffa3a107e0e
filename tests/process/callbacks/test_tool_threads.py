"""Process and unit: a tool or metric that hangs holds up no other pool, nor any call once its own has ended."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from dspex.config import PoolConfig
from dspex.errors import CallCancelled, DspexError, TooManyToolsLeft
from dspex.events import Event, Name
from dspex.pools import callback_handlers, tool_threads
from dspex.pools.callbacks import Callback
from dspex.pools.supervisor import Supervisor
from tests.support.supervisors import Supervise
from tests.support.waiting import Caller, Gate, eventually, pids

MIB = 1024 * 1024
ASK = {"name": "tool", "arguments": {}}


@pytest.fixture
def hold() -> Iterator[threading.Event]:
    """What the hanging tools of a test wait for."""
    event = threading.Event()
    yield event
    event.set()


def _hanging(hold: threading.Event, arrived: list[int]) -> Callable[[Callback], str]:
    def hang(request: Callback) -> str:
        arrived.append(request.outer.id)
        hold.wait(60)
        return "late"

    return hang


def _leave(sup: Supervisor, name: str, arrived: list[Any], *, until: Callable[[], bool] = lambda: True) -> None:
    """Call for a tool, wait until it runs, and give the call up; the tool goes on."""
    give_up: list[Callable[[], None]] = []

    def cancel(callback: Callable[[], None]) -> Callable[[], None]:
        give_up.append(callback)
        return lambda: None

    count = len(arrived)
    asked = {"name": name, "arguments": {}}
    caller = Caller(sup.pool("f").invoke, "ask", asked, timeout=60.0, cancel=cancel)
    eventually(lambda: len(arrived) > count and until())
    give_up[0]()
    with pytest.raises(CallCancelled):
        caller.outcome().result()


def test_hanging_tools_of_ended_calls_hold_up_nobody(supervise: Supervise, hold: threading.Event) -> None:
    """Process: 40 tools hang though their calls have ended; the next is run at once."""
    sup = supervise(size=2, concurrency=20, cancel_grace=30.0)
    arrived: list[int] = []
    sup.register("hang", _hanging(hold, arrived))
    sup.register("tool", lambda request: "done")
    for _ in range(40):
        _leave(sup, "hang", arrived)
    assert sup.call("f", "ask", ASK, timeout=20) == "done"
    hold.set()
    threads = sup.handlers._of_pools[0]._threads
    eventually(lambda: not threads._left and threads._threads <= tool_threads.THREADS, what="the threads come back")
    assert sup.call("f", "ask", ASK, timeout=20) == "done"


def test_hanging_tools_of_dead_workers_hold_up_nobody(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch, hold: threading.Event
) -> None:
    """Process: the worker that asked was killed; with one thread for tools, the next tool runs."""
    import os
    import signal

    monkeypatch.setattr(tool_threads, "THREADS", 1)
    sup = supervise(size=1, restart_budget=(100, 1.0))
    arrived: list[int] = []
    sup.register("hang", _hanging(hold, arrived))
    sup.register("tool", lambda request: "done")
    for count in range(1, 4):
        caller = Caller(sup.call, "f", "ask", {"name": "hang", "arguments": {}}, timeout=30.0)
        eventually(lambda count=count: len(arrived) == count)
        os.kill(pids(sup)[0], signal.SIGKILL)
        caller.join(20)
        assert sup.call("f", "ask", ASK, timeout=20) == "done"


@pytest.mark.parametrize("is_async", [False, True])
def test_what_hangs_in_one_pool_does_not_hold_up_another(hold: threading.Event, is_async: bool) -> None:
    """Process: every thread of one pool, or its event loop, is held by living calls; the other's tools answer."""
    settings = {"bridge": "faults", "size": 1, "concurrency": 40, "stop_grace": 0.2}
    arrived: list[int] = []
    hang = _hanging(hold, arrived)

    async def ahang(request: Callback) -> str:
        return hang(request)  # it blocks its loop, as no asynchronous handler should

    async def atool(request: Callback) -> str:
        return "done"

    with Supervisor(pools=[PoolConfig("f", **settings), PoolConfig("g", **settings)]) as sup:
        sup.register("hang", ahang if is_async else hang)
        sup.register("tool", atool if is_async else lambda request: "done")
        callers = [Caller(sup.call, "f", "ask", {"name": "hang", "arguments": {}}, timeout=60.0) for _ in range(40)]
        eventually(lambda: len(arrived) == (1 if is_async else tool_threads.THREADS))
        assert sup.call("g", "ask", ASK, timeout=20) == "done"
        hold.set()
        assert {caller.outcome(60) for caller in callers} == {"late"}


def test_past_the_bound_hanging_tools_are_an_error_and_an_event(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch, hold: threading.Event
) -> None:
    """Process: threads that never come back are not started without end, and nobody waits for them in silence."""
    monkeypatch.setattr(tool_threads, "THREADS", 2)
    monkeypatch.setattr(tool_threads, "LEFT_MOST", 3)
    sup = supervise(size=1, concurrency=20, cancel_grace=30.0)
    heard: list[Event] = []
    sup.on_event(heard.append)
    arrived: list[int] = []
    sup.register("hang", _hanging(hold, arrived))
    sup.register("tool", lambda request: "done")
    for _ in range(5):
        _leave(sup, "hang", arrived)
    threads = sup.handlers._of_pools[0]._threads
    eventually(lambda: len(threads._left) == 5)
    with pytest.raises(TooManyToolsLeft) as caught:
        sup.call("f", "ask", ASK, timeout=20)
    assert (caught.value.left, caught.value.limit) == (5, 5)
    eventually(lambda: {Name.TOOL_LEFT, Name.CALLBACK_REFUSED} <= {event.name for event in heard})
    hold.set()
    eventually(lambda: not threads._left)
    assert sup.call("f", "ask", ASK, timeout=20) == "done"


def test_those_who_wait_for_the_last_threads_hear_that_these_are_left(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch, hold: threading.Event
) -> None:
    """Process: the tool was queued behind a living call's; when that call ends and its tool does not, it is refused."""
    monkeypatch.setattr(tool_threads, "THREADS", 1)
    monkeypatch.setattr(tool_threads, "LEFT_MOST", 0)
    monkeypatch.setattr(tool_threads, "CALLS_MOST", 1)
    sup = supervise(size=1, concurrency=20, cancel_grace=30.0)
    arrived: list[int] = []
    sup.register("hang", _hanging(hold, arrived))
    sup.register("tool", lambda request: "done")
    second: list[Caller] = []
    threads = sup.handlers._of_pools[0]._threads

    def is_queued() -> bool:
        if not second:
            second.append(Caller(sup.call, "f", "ask", ASK, timeout=60.0))
        return len(threads._todo) == 1

    _leave(sup, "hang", arrived, until=is_queued)
    with pytest.raises(TooManyToolsLeft):
        second[0].outcome()


def test_an_asynchronous_tool_that_does_not_end_is_counted(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process: coroutines that swallow their cancellation are bounded too."""
    monkeypatch.setattr(callback_handlers, "LEFT_TASKS_MOST", 2)
    sup = supervise(size=1, cancel_grace=30.0)
    release: list[asyncio.Event] = []

    async def stubborn(request: Callback) -> None:
        event = asyncio.Event()
        release.append(event)
        while not event.is_set():
            try:
                await event.wait()
            except asyncio.CancelledError:
                continue

    sup.register("tool", stubborn)
    for _ in range(2):
        _leave(sup, "tool", release)
    callbacks = sup.handlers._of_pools[0]
    eventually(lambda: len(callbacks._left) == 2)
    with pytest.raises(TooManyToolsLeft):
        sup.call("f", "ask", ASK, timeout=20)
    for event in release:
        callbacks._loop.running().call_soon_threadsafe(event.set)
    eventually(lambda: not callbacks._left)


def test_a_gate_is_still_a_tool(supervise: Supervise) -> None:
    """Process: as many as there are threads run at once, and no more."""
    sup = supervise(size=2, concurrency=20)
    with Gate(sup) as gate:
        callers = [Caller(sup.call, *gate.command) for _ in range(40)]
        gate.wait_for(tool_threads.THREADS)
        assert len(gate.arrived) == tool_threads.THREADS
        gate.open()
        assert len([caller.outcome(30) for caller in callers]) == 40


def test_threads_beside_are_bounded(monkeypatch: pytest.MonkeyPatch, hold: threading.Event) -> None:
    """unit: what tools led to has threads of its own, not without end; they are given back."""
    monkeypatch.setattr(tool_threads, "BESIDE_MOST", 3)
    threads = tool_threads.ToolThreads("p", lambda count: None)
    for _ in range(3):
        threads.run_beside(cast("Callback", object()), lambda: hold.wait(20))
    with pytest.raises(TooManyToolsLeft):
        threads.run_beside(cast("Callback", object()), lambda: None)
    hold.set()
    eventually(lambda: threads._beside == 0)
    threads.run_beside(cast("Callback", object()), lambda: None)
    eventually(lambda: threads._beside == 0)


def test_an_answer_that_cannot_be_given_costs_no_thread(supervise: Supervise, monkeypatch: pytest.MonkeyPatch) -> None:
    """Process: whatever goes wrong after a tool, its worker hears of it or its thread serves the next."""
    monkeypatch.setattr(tool_threads, "THREADS", 1)
    sup = supervise(size=1)

    class Changing(dict[str, int]):
        """No value that can cross."""

    sup.register("tool", lambda request: Changing(a=1))
    for _ in range(3):
        with pytest.raises(DspexError):
            sup.call("f", "ask", ASK, timeout=20)
    sup.register("tool", lambda request: "done")
    assert sup.call("f", "ask", ASK, timeout=20) == "done"
