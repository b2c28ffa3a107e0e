"""Process and unit: how much a worker may ask at once; the asking of one call, worker or pool holds up no other."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dspex.errors import CallTimeout, InvalidInput, ProtocolError, TooManyCallbacks
from dspex.events import Event, Name
from dspex.pools import worker as worker_module
from dspex.pools.callback_limits import CallbackAdmission, CallbackLimits
from dspex.pools.callbacks import CHUNKS_UNREAD_MOST, Callback
from dspex.pools.supervisor import Supervisor
from tests.support.paths import ODD_BRIDGE as ODD
from tests.support.paths import ROOT
from tests.support.supervisors import Supervise
from tests.support.waiting import Caller, all_ready, eventually, pids

MIB = 1024 * 1024
ASK = {"name": "tool", "arguments": {}}


def _counts(sup: Supervisor) -> tuple[int, int]:
    """How many callbacks of the pool run, and how many wait."""
    admission = sup.handlers._of_pools[0]._admission
    assert admission is not None
    return admission.counts()


class Streams:
    """An asynchronous handler that counts the streams that are open."""

    def __init__(self) -> None:
        self.open = 0
        self.most = 0

    async def __call__(self, request: Callback) -> Any:
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

    def make(limits: CallbackLimits, **settings: Any) -> tuple[Supervisor, Streams]:
        sup = supervise(**{"bridge": ODD, "size": 2, "concurrency": 4, **settings})
        all_ready(sup, sup.pool("f").config.size)
        sup.handlers._limits = limits
        opened = Streams()

        async def endless(request: Callback) -> Any:
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
    sup, opened = streams(CallbackLimits(call=8, worker=16, pool=32))
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
    sup, opened = streams(CallbackLimits(call=4, worker=8, pool=8), cancel_grace=10.0)
    with pytest.raises(CallTimeout):
        sup.call("f", "open_streams", {"count": 50, "path": str(tmp_path / "never")}, timeout=0.5)
    eventually(lambda: opened.open == 0 and _counts(sup) == (0, 0))
    assert sup.call("f", "ask", ASK, timeout=20) == "done"


def test_more_than_may_wait_is_refused_by_name_and_told(
    streams: Callable[..., tuple[Supervisor, Streams]], tmp_path: Path
) -> None:
    """Process: the request hears TooManyCallbacks, an event says so, the worker lives on."""
    sup, opened = streams(CallbackLimits(call=2, worker=4, pool=8, waiting_of_call=5), size=1)
    heard: list[Event] = []
    sup.on_event(heard.append)
    before, path = pids(sup), tmp_path / "go"
    busy = Caller(sup.call, "f", "open_streams", {"count": 10, "path": str(path)}, timeout=60.0)
    eventually(lambda: [event for event in heard if event.name is Name.CALLBACK_REFUSED])
    path.touch()
    assert busy.outcome(60) == ["TooManyCallbacks"] * 3
    (told,) = [event for event in heard if event.name is Name.CALLBACK_REFUSED]
    assert told.facts["reason"] == "call" and told.facts["handler"] == "endless"
    assert pids(sup) == before
    assert opened.most == 2


def test_a_caller_gets_the_refusal_itself(streams: Callable[..., tuple[Supervisor, Streams]]) -> None:
    """Process: with its facts, if the worker's code passes it on."""
    sup, _ = streams(CallbackLimits(bytes_of_worker=1000), size=1)
    with pytest.raises(TooManyCallbacks) as caught:
        sup.call("f", "ask", {"name": "tool", "arguments": {"text": "x" * 2000}}, timeout=20)
    assert (caught.value.scope, caught.value.what, caught.value.limit) == ("worker", "bytes", 1000)
    assert sup.call("f", "ask", ASK, timeout=20) == "done"


def test_what_a_tool_leads_to_does_not_wait_for_it(streams: Callable[..., tuple[Supervisor, Streams]]) -> None:
    """Process (C14): with room for one, a tool whose call asks a tool is answered."""
    sup, _ = streams(CallbackLimits(call=1, worker=1, pool=1), size=1)
    sup.register("outer", lambda request: sup.call("f", "ask", ASK, timeout=10))
    assert sup.call("f", "ask", {"name": "outer", "arguments": {}}, timeout=20) == "done"


def test_a_worker_that_reads_no_answers_gets_no_more(supervise: Supervise, monkeypatch: pytest.MonkeyPatch) -> None:
    """Process: it asks 2,000 times and stops reading; what is kept for it is bounded, and the next call is served."""
    monkeypatch.setattr(worker_module, "UNREAD_MOST", 4 * MIB)
    sup = supervise(bridge=ODD, size=1, cancel_grace=0.1, restart_budget=(100, 1.0))
    asked: list[int] = []

    def tool(request: Callback) -> bytes:
        asked.append(request.id)
        return b"x" * 500_000

    sup.register("tool", tool)
    worker = next(iter(sup.pool("f")._dispatcher.workers.values()))
    with pytest.raises((CallTimeout, ProtocolError)):  # it asks on after the bound, or had asked everything before
        sup.call("f", "ask_deaf", {"name": "tool", "count": 1000}, timeout=1.0)
    assert worker.channel is not None
    most = 9 + sup.handlers.limits().call  # answers that reach the bound, and those that were begun before
    assert 0 < len(asked) <= most
    assert worker.channel.unwritten < most * 501_000 + 1000 * 2_000
    assert sup.call("f", "ask", {"name": "tool", "arguments": {}}, timeout=20) == b"x" * 500_000


def test_chunks_that_no_thread_reads_are_bounded_in_bytes(supervise: Supervise, tmp_path: Path) -> None:
    """Process: 8 busy calls with 20 streams each, chunks of 250 KB: credit alone would keep 640 MB of them here."""
    sup = supervise(bridge=ODD, size=1, concurrency=8)
    all_ready(sup, 1)

    async def endless(request: Callback) -> Any:
        while True:
            yield b"x" * 250_000

    sup.register("endless", endless)
    path, (worker,) = tmp_path / "go", sup.pool("f")._dispatcher.workers.values()
    ask = {"count": 20, "path": str(path)}
    busy = [Caller(sup.call, "f", "open_streams", ask, timeout=60.0) for _ in range(8)]
    assert worker.channel is not None
    most, until = 0, time.monotonic() + 2.0
    while time.monotonic() < until:
        most = max(most, worker.channel.unwritten)
        time.sleep(0.01)
    path.touch()
    assert [caller.outcome(60) for caller in busy] == [[]] * 8
    assert MIB < most < CHUNKS_UNREAD_MOST + 2 * MIB


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
    while not (callbacks := sup.handlers._of_pools[0])._admission or callbacks._admission.counts()[1] < 900:
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
    assert int(count) > 100 and kinds.strip() == "{'TooManyCallbacks'}", done.stdout


@pytest.mark.parametrize("arguments", [{}, {"id": {}, "name": "n"}, {"id": "i", "name": []}])
@pytest.mark.parametrize("name", ["tool.call", "metric.call", "lm.request"])
def test_odd_arguments_of_our_own_handlers_are_named(
    supervise: Supervise, name: str, arguments: dict[str, Any]
) -> None:
    """Process: InvalidInput that names the field, for the worker to hear; it is not retired for it."""
    from dspex.services.services import services_of

    sup = supervise(size=1)
    services_of(sup)
    command = "ask_stream" if name == "lm.request" else "ask"
    with pytest.raises(InvalidInput):
        list(sup.stream("f", command, {"name": name, "arguments": arguments}, timeout=20))
    assert sup.call("f", "ping")["generation"] == 1


@dataclass(eq=False)
class Request:
    """What admission reads of a callback."""

    outer: Any
    worker: Any
    size: int
    is_within_tool: bool
    name: str = "n"


def _request(call: int, worker: int = 1, *, size: int = 10, nested: bool = False) -> Callback:
    outer = SimpleNamespace(id=call, command="c")
    return cast("Callback", Request(outer, SimpleNamespace(generation=worker), size, nested))


def test_admission_counts_by_call_worker_and_pool() -> None:
    """unit: whose bound is reached waits; the others go on, one of each call in turn."""
    admission = CallbackAdmission("p", CallbackLimits(call=2, worker=3, pool=4))
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
    limits = CallbackLimits(call=3, worker=5, pool=7, waiting_of_call=4, waiting_of_worker=9, bytes_of_worker=200)
    admission = CallbackAdmission("p", limits)
    running: set[Callback] = set()
    waiting: set[Callback] = set()
    for _ in range(400):
        if random.random() < 0.6:
            call = random.randrange(4)
            request = _request(call, call % 2, size=random.randrange(1, 40))
            try:
                (running if admission.enter(request) else waiting).add(request)
            except TooManyCallbacks as refusal:
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
    limits = CallbackLimits.of_host(descriptors, pools)
    assert 8 <= limits.call < limits.worker < limits.pool <= 1024
    assert limits.pool == 32 or limits.pool * pools <= descriptors // 4
    assert descriptors < 1024 or pools > 2 or limits.call >= 32
