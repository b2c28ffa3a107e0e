"""Process and unit: what a worker may ask at once, and that what hangs in one call or pool holds up no other."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dspex.config import PoolConfig
from dspex.errors import CallTimeout, DspexError, InvalidInput, ProtocolError, TooManyReverseCalls, TooManyToolsLeft
from dspex.events import Event, Name
from dspex.pools import handlers, replies, toolthreads
from dspex.pools import worker as worker_module
from dspex.pools.admission import Admission, Limits
from dspex.pools.intake import PATIENCE, ROOM, SMALL, Intake
from dspex.pools.reverse import ReverseCall
from dspex.pools.supervisor import Supervisor
from dspex.pools.worker import Worker
from dspex_worker.wire import FRAME_LIMIT

from .conftest import Supervise
from .waiting import Caller, Gate, all_ready, eventually, pids

ODD = str(Path(__file__).parents[1] / "chaos" / "odd_bridge.py")
ROOT = Path(__file__).parents[2]
MIB = 1024 * 1024
ASK = {"name": "tool", "arguments": {}}


def _counts(sup: Supervisor) -> tuple[int, int]:
    """How many reverse calls of the pool run, and how many wait."""
    admission = sup.handlers._lanes[0]._admission
    assert admission is not None
    return admission.counts()


class Streams:
    """An asynchronous handler that counts the streams that are open."""

    def __init__(self) -> None:
        self.open = 0
        self.most = 0

    async def __call__(self, request: ReverseCall) -> Any:
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            while True:
                yield "chunk"
        finally:
            self.open -= 1


@pytest.fixture
def streams(supervise: Supervise) -> Callable[..., tuple[Supervisor, Streams]]:
    """A maker of supervisors whose workers may open endless streams, with limits of its own."""

    def make(limits: Limits, **settings: Any) -> tuple[Supervisor, Streams]:
        sup = supervise(**{"bridge": ODD, "size": 2, "concurrency": 4, **settings})
        all_ready(sup, sup.pool("f").config.size)
        sup.handlers._limits = limits
        opened = Streams()

        async def endless(request: ReverseCall) -> Any:
            async for chunk in opened(request):
                yield chunk

        sup.register("endless", endless)
        sup.register("tool", lambda request: "done")
        return sup, opened

    return make


def test_unread_streams_of_a_call_take_the_room_of_no_other(
    streams: Callable[..., tuple[Supervisor, Streams]], tmp_path: Path
) -> None:
    """Process: 60 of one call, of which 8 run; other calls, of the same worker too, ask and are answered."""
    sup, opened = streams(Limits(call=8, worker=16, pool=32))
    path = tmp_path / "go"
    busy = Caller(sup.call, "f", "open_streams", {"count": 60, "path": str(path)}, timeout=60.0)
    eventually(lambda: opened.open == 8)
    for _ in range(20):
        assert sup.call("f", "ask", ASK, timeout=20) == "done"
    assert opened.most == 8
    path.touch()
    assert busy.outcome(60) == []  # each had its turn
    eventually(lambda: opened.open == 0)
    assert opened.most == 8
    eventually(lambda: _counts(sup) == (0, 0))


def test_what_waits_goes_with_its_call(streams: Callable[..., tuple[Supervisor, Streams]], tmp_path: Path) -> None:
    """Process: a call that ends at its deadline leaves neither streams nor a queue."""
    sup, opened = streams(Limits(call=4, worker=8, pool=8), cancel_grace=10.0)
    with pytest.raises(CallTimeout):
        sup.call("f", "open_streams", {"count": 50, "path": str(tmp_path / "never")}, timeout=0.5)
    eventually(lambda: opened.open == 0 and _counts(sup) == (0, 0))
    assert sup.call("f", "ask", ASK, timeout=20) == "done"


def test_more_than_may_wait_is_refused_by_name_and_told(
    streams: Callable[..., tuple[Supervisor, Streams]], tmp_path: Path
) -> None:
    """Process: the request hears TooManyReverseCalls, an event says so, the worker lives on."""
    sup, opened = streams(Limits(call=2, worker=4, pool=8, waiting_of_call=5), size=1)
    heard: list[Event] = []
    sup.on_event(heard.append)
    before, path = pids(sup), tmp_path / "go"
    busy = Caller(sup.call, "f", "open_streams", {"count": 10, "path": str(path)}, timeout=60.0)
    eventually(lambda: [event for event in heard if event.name is Name.REVERSE_CALL_REFUSED])
    path.touch()
    assert busy.outcome(60) == ["TooManyReverseCalls"] * 3
    (told,) = [event for event in heard if event.name is Name.REVERSE_CALL_REFUSED]
    assert told.facts["reason"] == "call" and told.facts["handler"] == "endless"
    assert pids(sup) == before
    assert opened.most == 2


def test_a_caller_gets_the_refusal_itself(streams: Callable[..., tuple[Supervisor, Streams]]) -> None:
    """Process: with its facts, if the worker's code passes it on."""
    sup, _ = streams(Limits(bytes_of_worker=1000), size=1)
    with pytest.raises(TooManyReverseCalls) as caught:
        sup.call("f", "ask", {"name": "tool", "arguments": {"text": "x" * 2000}}, timeout=20)
    assert (caught.value.scope, caught.value.what, caught.value.limit) == ("worker", "bytes", 1000)
    assert sup.call("f", "ask", ASK, timeout=20) == "done"


def test_what_a_tool_leads_to_does_not_wait_for_it(streams: Callable[..., tuple[Supervisor, Streams]]) -> None:
    """Process (C14): with room for one, a tool whose call asks a tool is answered."""
    sup, _ = streams(Limits(call=1, worker=1, pool=1), size=1)
    sup.register("outer", lambda request: sup.call("f", "ask", ASK, timeout=10))
    assert sup.call("f", "ask", {"name": "outer", "arguments": {}}, timeout=20) == "done"


def test_a_worker_that_reads_no_answers_gets_no_more(supervise: Supervise, monkeypatch: pytest.MonkeyPatch) -> None:
    """Process: it asks 2,000 times and stops reading; what is kept for it is bounded, and the next call is served."""
    monkeypatch.setattr(worker_module, "UNREAD_MOST", 4 * MIB)
    sup = supervise(bridge=ODD, size=1, cancel_grace=0.1, restart_budget=(100, 1.0))
    asked: list[int] = []

    def tool(request: ReverseCall) -> bytes:
        asked.append(request.id)
        return b"x" * 500_000

    sup.register("tool", tool)
    worker = next(iter(sup.pool("f")._desk.workers.values()))
    with pytest.raises((CallTimeout, ProtocolError)):  # it asks on after the bound, or had asked everything before
        sup.call("f", "ask_deaf", {"name": "tool", "count": 1000}, timeout=1.0)
    assert worker.channel is not None
    assert worker.channel.unwritten < 4 * MIB + toolthreads.THREADS * 500_000 + 1000 * 2_000
    assert 8 <= len(asked) < 8 + toolthreads.THREADS + 2
    assert sup.call("f", "ask", {"name": "tool", "arguments": {}}, timeout=20) == b"x" * 500_000


UNREAD = """
import asyncio, os, resource, signal, socket, sys, tempfile, threading, time
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
from dspex.config import PoolConfig
from dspex.pools.supervisor import Supervisor

async def endless(request):
    pair = socket.socketpair()
    try:
        while True:
            yield b"x"
    finally:
        for end in pair:
            end.close()

pools = [
    PoolConfig("f", bridge=sys.argv[1], size=1, stop_grace=0.2),
    PoolConfig("g", bridge="faults", size=2, restart_budget=(99, 1.0)),
]
with tempfile.TemporaryDirectory() as folder, Supervisor(pools=pools) as sup:
    sup.wait_ready()
    sup.register("endless", endless)
    path = Path(folder) / "go"
    said = []
    thread = threading.Thread(
        target=lambda: said.append(sup.call("f", "open_streams", {"count": 1500, "path": str(path)}, timeout=60))
    )
    thread.start()
    deadline = time.monotonic() + 20
    while not (lane := sup.handlers._lanes[0])._admission or lane._admission.counts()[1] < 900:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    for _ in range(2):
        pid = sup.call("g", "ping", timeout=20)["pid"]
        os.kill(pid, signal.SIGKILL)
        while any(row["pid"] == pid for row in sup.stats()["g"]["workers"]):
            time.sleep(0.005)
        assert sup.call("g", "ping", timeout=20)["pid"] != pid
    path.touch()
    thread.join()
    print(len(said[0]), set(said[0]))
"""


def test_unread_streams_leave_descriptors_for_another_pools_workers() -> None:
    """Process: 1,500 streams that hold two each, of 256 there are: a killed worker of another pool is replaced."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(UNREAD), ODD], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    count, kinds = done.stdout.split(" ", 1)
    assert int(count) > 100 and kinds.strip() == "{'TooManyReverseCalls'}", done.stdout


# -- threads ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def hold() -> Iterator[threading.Event]:
    """What the hanging tools of a test wait for."""
    event = threading.Event()
    yield event
    event.set()


def _hanging(hold: threading.Event, arrived: list[int]) -> Callable[[ReverseCall], str]:
    def hang(request: ReverseCall) -> str:
        arrived.append(request.outer.id)
        hold.wait(60)
        return "late"

    return hang


def test_hanging_tools_of_ended_calls_hold_up_nobody(supervise: Supervise, hold: threading.Event) -> None:
    """Process: 40 tools hang though their calls have ended; the next is run at once."""
    sup = supervise(size=2, concurrency=20, cancel_grace=30.0)
    arrived: list[int] = []
    sup.register("hang", _hanging(hold, arrived))
    sup.register("tool", lambda request: "done")
    callers = [Caller(sup.call, "f", "ask", {"name": "hang", "arguments": {}}, timeout=0.7) for _ in range(40)]
    for caller in callers:
        with pytest.raises(CallTimeout):
            caller.outcome()
    assert sup.call("f", "ask", ASK, timeout=20) == "done"
    hold.set()
    threads = sup.handlers._lanes[0]._threads
    eventually(lambda: not threads._left and threads._threads <= toolthreads.THREADS, what="the threads come back")
    assert sup.call("f", "ask", ASK, timeout=20) == "done"


def test_hanging_tools_of_dead_workers_hold_up_nobody(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch, hold: threading.Event
) -> None:
    """Process: the worker that asked was killed; with one thread for tools, the next tool runs."""
    import os
    import signal

    monkeypatch.setattr(toolthreads, "THREADS", 1)
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

    async def ahang(request: ReverseCall) -> str:
        return hang(request)  # it blocks its loop, as no asynchronous handler should

    async def atool(request: ReverseCall) -> str:
        return "done"

    with Supervisor(pools=[PoolConfig("f", **settings), PoolConfig("g", **settings)]) as sup:
        sup.register("hang", ahang if is_async else hang)
        sup.register("tool", atool if is_async else lambda request: "done")
        callers = [Caller(sup.call, "f", "ask", {"name": "hang", "arguments": {}}, timeout=60.0) for _ in range(40)]
        eventually(lambda: len(arrived) == (1 if is_async else toolthreads.THREADS))
        assert sup.call("g", "ask", ASK, timeout=20) == "done"
        hold.set()
        assert {caller.outcome(60) for caller in callers} == {"late"}


def test_past_the_bound_hanging_tools_are_an_error_and_an_event(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch, hold: threading.Event
) -> None:
    """Process: threads that never come back are not started without end, and nobody waits for them in silence."""
    monkeypatch.setattr(toolthreads, "THREADS", 2)
    monkeypatch.setattr(toolthreads, "LEFT_MOST", 3)
    sup = supervise(size=1, concurrency=20, cancel_grace=30.0)
    heard: list[Event] = []
    sup.on_event(heard.append)
    arrived: list[int] = []
    sup.register("hang", _hanging(hold, arrived))
    sup.register("tool", lambda request: "done")
    for _ in range(5):
        with pytest.raises(CallTimeout):
            sup.call("f", "ask", {"name": "hang", "arguments": {}}, timeout=0.3)
    eventually(lambda: len(arrived) == 5)
    with pytest.raises(TooManyToolsLeft) as caught:
        sup.call("f", "ask", ASK, timeout=20)
    assert (caught.value.left, caught.value.limit) == (5, 5)
    eventually(lambda: {Name.TOOL_LEFT, Name.REVERSE_CALL_REFUSED} <= {event.name for event in heard})
    hold.set()
    threads = sup.handlers._lanes[0]._threads
    eventually(lambda: not threads._left)
    assert sup.call("f", "ask", ASK, timeout=20) == "done"


def test_those_who_wait_for_the_last_threads_hear_that_these_are_left(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch, hold: threading.Event
) -> None:
    """Process: the tool was queued behind a living call's; when that call ends and its tool does not, it is refused."""
    monkeypatch.setattr(toolthreads, "THREADS", 1)
    monkeypatch.setattr(toolthreads, "LEFT_MOST", 0)
    sup = supervise(size=1, concurrency=20, cancel_grace=30.0)
    arrived: list[int] = []
    sup.register("hang", _hanging(hold, arrived))
    sup.register("tool", lambda request: "done")
    first = Caller(sup.call, "f", "ask", {"name": "hang", "arguments": {}}, timeout=1.0)
    eventually(lambda: arrived)
    second = Caller(sup.call, "f", "ask", ASK, timeout=30.0)
    with pytest.raises(CallTimeout):
        first.outcome()
    with pytest.raises(TooManyToolsLeft):
        second.outcome()


def test_an_asynchronous_tool_that_does_not_end_is_counted(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process: coroutines that swallow their cancellation are bounded too."""
    monkeypatch.setattr(handlers, "LEFT_TASKS_MOST", 2)
    sup = supervise(size=1, cancel_grace=30.0)
    release: list[asyncio.Event] = []

    async def stubborn(request: ReverseCall) -> None:
        event = asyncio.Event()
        release.append(event)
        while not event.is_set():
            try:
                await event.wait()
            except asyncio.CancelledError:
                continue

    sup.register("tool", stubborn)
    for _ in range(2):
        with pytest.raises(CallTimeout):
            sup.call("f", "ask", ASK, timeout=0.3)
    lane = sup.handlers._lanes[0]
    eventually(lambda: len(lane._left) == 2)
    with pytest.raises(TooManyToolsLeft):
        sup.call("f", "ask", ASK, timeout=20)
    assert lane._loop is not None
    for event in release:
        lane._loop.call_soon_threadsafe(event.set)
    eventually(lambda: not lane._left)


# -- pure ------------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Request:
    """What admission reads of a reverse call."""

    outer: Any
    worker: Any
    size: int
    is_within_tool: bool
    name: str = "n"


def _request(call: int, worker: int = 1, *, size: int = 10, nested: bool = False) -> ReverseCall:
    outer = SimpleNamespace(id=call, command="c")
    return cast("ReverseCall", Request(outer, SimpleNamespace(generation=worker), size, nested))


def test_admission_counts_by_call_worker_and_pool() -> None:
    """unit: whose bound is reached waits; the others go on, one of each call in turn."""
    admission = Admission("p", Limits(call=2, worker=3, pool=4))
    first = [_request(1) for _ in range(4)]
    assert [admission.enter(request) for request in first] == [True, True, False, False]
    second = [_request(2) for _ in range(2)]
    assert [admission.enter(request) for request in second] == [True, False]  # its worker has three
    third = [_request(3, 2) for _ in range(2)]
    assert [admission.enter(request) for request in third] == [True, False]  # the pool has four
    assert admission.enter(_request(4, nested=True))
    assert admission.leave(first[0]) == [first[2]]
    assert admission.leave(first[0]) == []
    assert admission.leave(first[1]) == [second[1]]
    assert admission.leave(third[1]) == []
    assert admission.leave(first[3]) == []
    assert admission.counts() == (5, 0)


@pytest.mark.parametrize("seed", range(20))
def test_admission_keeps_its_bounds_whatever_happens(seed: int) -> None:
    """unit: random requests and ends; at the end nothing is counted."""
    from random import Random

    random = Random(seed)
    limits = Limits(call=3, worker=5, pool=7, waiting_of_call=4, waiting_of_worker=9, bytes_of_worker=200)
    admission = Admission("p", limits)
    running: set[ReverseCall] = set()
    waiting: set[ReverseCall] = set()
    for _ in range(400):
        if random.random() < 0.6:
            call = random.randrange(4)
            request = _request(call, call % 2, size=random.randrange(1, 40))
            try:
                (running if admission.enter(request) else waiting).add(request)
            except TooManyReverseCalls as refusal:
                assert refusal.actual > refusal.limit
        elif running or waiting:
            gone = random.choice([*running, *waiting])
            running.discard(gone)
            waiting.discard(gone)
            for begun in admission.leave(gone):
                waiting.remove(begun)
                running.add(begun)
        assert admission.counts() == (len(running), len(waiting))
        assert len(running) <= 7 and sum(r.size for r in running | waiting if r.worker.generation == 0) <= 200
        for call in range(4):
            assert sum(r.outer.id == call for r in running) <= 3
            assert sum(r.outer.id == call for r in waiting) <= 4
    while running or waiting:
        gone = (running or waiting).pop()
        for begun in admission.leave(gone):
            waiting.remove(begun)
            running.add(begun)
    assert not (admission._of_call or admission._of_worker or admission._bytes_of_worker or admission._waiting)


@pytest.mark.parametrize(("descriptors", "pools"), [(256, 2), (1024, 1), (1024, 2), (1024, 4), (2**20, 2), (64, 9)])
def test_limits_leave_descriptors_for_the_rest(descriptors: int, pools: int) -> None:
    """unit: a call less than its worker, a worker less than its pool, all pools a quarter (32 each at the least)."""
    limits = Limits.of_host(descriptors, pools)
    assert 8 <= limits.call < limits.worker < limits.pool <= 1024
    assert limits.pool == 32 or limits.pool * pools <= descriptors // 4
    assert descriptors < 1024 or pools > 2 or limits.call >= 32


# -- unfinished frames -----------------------------------------------------------------------------------------------


class Readers:
    """An intake of workers that are only names, and who of them is paused."""

    def __init__(self) -> None:
        self.paused: set[str] = set()
        self.intake = Intake(
            cast("Callable[[Worker], None]", self.paused.add), cast("Callable[[Worker], None]", self.paused.discard)
        )

    def note(self, name: str, size: int, now: float = 0.0, *, is_new: bool = False) -> None:
        self.intake.note(cast("Worker", name), size, now, is_new=is_new)


def test_forty_frames_held_back_by_a_byte_stay_within_the_room() -> None:
    """unit: those that came when there was none wait; who holds the room too long goes; in the end all are done."""
    readers, now = Readers(), 0.0
    sizes = dict.fromkeys((f"w{n}" for n in range(40)), 0)
    gone: list[str] = []
    while len(gone) < 40:
        for name in sizes:
            while name not in readers.paused and name not in gone and sizes[name] < FRAME_LIMIT - 1:
                sizes[name] = min(FRAME_LIMIT - 1, sizes[name] + 64 * 1024)
                readers.note(name, sizes[name], now)
        assert readers.intake.held <= ROOM + FRAME_LIMIT + 40 * (SMALL + 64 * 1024)
        assert sum(sizes[name] for name in sizes if name not in gone) == readers.intake.held
        if not readers.paused:
            break
        now = readers.intake.due
        assert now < 1000
        late = [str(worker) for worker in readers.intake.late(now)]
        assert late
        for name in late:
            gone.append(name)
            readers.intake.forget(cast("Worker", name), now)
    assert len(gone) >= 30 and not readers.paused
    assert readers.intake.held <= ROOM + FRAME_LIMIT


def test_large_frames_of_many_workers_go_through_one_after_the_other() -> None:
    """unit: nobody is late, however many send frames of the largest size."""
    readers = Readers()
    left = dict.fromkeys((f"w{n}" for n in range(40)), FRAME_LIMIT)
    while left:
        moved = False
        for name in list(left):
            if name in readers.paused:
                continue
            moved = True
            left[name] -= 64 * 1024
            readers.note(name, FRAME_LIMIT - left[name] if left[name] else 0)
            if not left[name]:
                del left[name]
        assert moved, "everybody is paused"
        assert readers.intake.held <= ROOM + FRAME_LIMIT + 40 * (SMALL + 64 * 1024)
    assert readers.intake.held == 0 and readers.intake.due == float("inf")


def test_a_small_frame_is_always_read() -> None:
    """unit: the attack of some costs the others nothing."""
    readers = Readers()
    for name in ("a", "b", "c", "d", "e"):
        readers.note(name, FRAME_LIMIT - 1)
    readers.note("good", SMALL)
    assert "good" not in readers.paused and "e" in readers.paused
    assert readers.intake.due == PATIENCE


def test_a_worker_that_sends_frame_after_frame_is_not_the_oldest_for_ever() -> None:
    """unit: what it has pending is of another frame each time."""
    readers = Readers()
    for name in ("a", "b", "c", "d", "e"):
        readers.note(name, FRAME_LIMIT - 1)
    readers.note("a", FRAME_LIMIT - 1, 9.0, is_new=True)
    assert readers.paused == {"a", "e"}
    assert [str(worker) for worker in readers.intake.late(PATIENCE)] == ["b", "c", "d"]


def test_a_frame_that_is_held_back_is_given_up_for_those_that_wait(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process: five workers hold large frames back; the sixth's large answer arrives, small ones meanwhile too."""
    from dspex.pools import intake

    monkeypatch.setattr(intake, "ROOM", 4 * 1024 * 1024)
    monkeypatch.setattr(intake, "PATIENCE", 1.0)
    sup = supervise(size=5, concurrency=1, restart_budget=(100, 1.0))
    all_ready(sup, 5)
    held = (3 * 1024 * 1024).to_bytes(4, "big") + b"\xc6" + b"x" * (3 * 1024 * 1024 - 5)
    bad = [Caller(sup.call, "f", "garbage", {"data": held, "seconds": 60.0}, timeout=60.0) for _ in range(4)]
    desk = sup.pool("f")._desk
    pending = lambda: sum(w.buffer.pending for w in tuple(desk.workers.values()))  # noqa: E731
    eventually(lambda: pending() > 4 * 1024 * 1024)
    assert sup.call("f", "echo", {"n": 1}, timeout=20) == {"n": 1}
    assert len(sup.call("f", "payload", {"bytes": 8 * 1024 * 1024}, timeout=60)) == 8 * 1024 * 1024
    assert pending() <= 4 * 1024 * 1024 + 3 * 1024 * 1024 + 5 * (SMALL + 64 * 1024)
    errors = {type(caller.error).__name__ for caller in bad if not caller.is_alive()}
    assert errors == {"ProtocolError"}
    sup.stop(grace=0.0)
    for caller in bad:
        caller.join(20)


def test_reports_that_nobody_takes_are_dropped_and_counted(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process: a subscriber hangs, a worker tells events on and on: bounded here, and told afterwards."""
    monkeypatch.setattr(replies, "REPORTS_MOST", 1024 * 1024)
    sup = supervise(bridge=str(ROOT / "tests" / "worker" / "hostile_bridge.py"), size=1)
    heard: list[Event] = []
    go = threading.Event()

    def slow(event: Event) -> None:
        heard.append(event)
        if event.name is Name.WORKER_REPORTED:
            go.wait(30)

    sup.on_event(slow)
    for _ in range(40):
        sup.call("f", "emit", {"name": "e", "facts": {"text": "x" * 100_000}}, timeout=20)
    go.set()
    assert sup.flush_events(20)
    assert 5 <= len([event for event in heard if event.name is Name.WORKER_REPORTED]) <= 12
    sup.call("f", "emit", {"name": "e", "facts": {}}, timeout=20)
    assert sup.flush_events(20)
    (dropped,) = [event for event in heard if event.name is Name.REPORT_DROPPED]
    assert dropped.facts["count"] >= 28


def test_a_gate_is_still_a_tool(supervise: Supervise) -> None:
    """Process: as many as there are threads run at once, and no more."""
    sup = supervise(size=2, concurrency=20)
    with Gate(sup) as gate:
        callers = [Caller(sup.call, *gate.command) for _ in range(40)]
        gate.wait_for(toolthreads.THREADS)
        assert len(gate.arrived) == toolthreads.THREADS
        gate.open()
        assert len([caller.outcome(30) for caller in callers]) == 40


def test_threads_beside_are_bounded(monkeypatch: pytest.MonkeyPatch, hold: threading.Event) -> None:
    """unit: what tools led to has threads of its own, not without end; they are given back."""
    monkeypatch.setattr(toolthreads, "BESIDE_MOST", 3)
    threads = toolthreads.ToolThreads("p", lambda count: None)
    for n in range(3):
        threads.run_beside(_request(n), lambda: hold.wait(20))
    with pytest.raises(TooManyToolsLeft):
        threads.run_beside(_request(9), lambda: None)
    hold.set()
    eventually(lambda: threads._beside == 0)
    threads.run_beside(_request(9), lambda: None)
    eventually(lambda: threads._beside == 0)


def test_an_answer_that_cannot_be_given_costs_no_thread(supervise: Supervise, monkeypatch: pytest.MonkeyPatch) -> None:
    """Process: whatever goes wrong after a tool, its worker hears of it or its thread serves the next."""
    monkeypatch.setattr(toolthreads, "THREADS", 1)
    sup = supervise(size=1)

    class Changing(dict[str, int]):
        """No value that can cross."""

    sup.register("tool", lambda request: Changing(a=1))
    for _ in range(3):
        with pytest.raises(DspexError):
            sup.call("f", "ask", ASK, timeout=20)
    sup.register("tool", lambda request: "done")
    assert sup.call("f", "ask", ASK, timeout=20) == "done"


@pytest.mark.parametrize("arguments", [{}, {"id": {}, "name": "n"}, {"id": "i", "name": []}])
@pytest.mark.parametrize("name", ["tool.call", "metric.call", "lm.request"])
def test_odd_arguments_of_our_own_handlers_are_named(
    supervise: Supervise, name: str, arguments: dict[str, Any]
) -> None:
    """Process: InvalidInput that names the field, for the worker to hear; it is not retired for it."""
    from dspex.services import services_of

    sup = supervise(size=1)
    services_of(sup)
    command = "ask_stream" if name == "lm.request" else "ask"
    with pytest.raises(InvalidInput):
        list(sup.stream("f", command, {"name": name, "arguments": arguments}, timeout=20))
    assert sup.call("f", "ping")["generation"] == 1
