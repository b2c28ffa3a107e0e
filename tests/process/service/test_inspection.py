"""Process: an operator sees the calls, sessions, clients and stacks of pools that are full and workers that hang."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex.control import Client, Service
from dspex.control.command_client import DirectClient
from dspex.errors import CallCancelled, DspexError, InvalidInput, UnknownName
from tests.support.waiting import eventually

BRIDGE = Path(__file__).parents[2] / "support" / "pools" / "stuck_bridge.py"
SECRET = "sk-this-is-nobodys-business"
HANGS = ("loop", "sum_in_c", "backtrack", "nap")


class Made:
    """Calls made in threads, and what each ended with."""

    def __init__(self, pool: Any) -> None:
        self.ended: list[Any] = []
        self._pool = pool
        self._threads: list[threading.Thread] = []

    def call(self, command: str, arguments: dict[str, Any] | None = None, **options: Any) -> None:
        def run() -> None:
            try:
                self.ended.append(self._pool("stuck", command, arguments, **options))
            except DspexError as error:
                self.ended.append(error)

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(20.0)


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    pool = dspex.PoolConfig(
        "stuck", bridge=str(BRIDGE), size=1, concurrency=1, queue_limit=2, cancel_grace=0.2, restart_budget=(1000, 1.0)
    )
    with dspex.Supervisor(pools=[pool]) as running:
        yield running.wait_ready()


@pytest.fixture
def operator(sup: dspex.Supervisor, folder: Path) -> Iterator[DirectClient]:
    with Service(sup) as service, DirectClient(service.path) as client:
        yield client


@pytest.fixture
def made(sup: dspex.Supervisor) -> Iterator[Made]:
    """Calls of this process; what is left of them is cancelled."""
    calls = Made(sup.call)
    yield calls
    end_calls(sup)
    calls.join()


def in_stacks(side: Any, command: str) -> Any:
    """Return the worker's stacks, if the command is among them."""
    seen = side.stacks("stuck/0")
    return seen if f"in {command}" in seen["stacks"] else None


def end_calls(sup: dspex.Supervisor) -> None:
    def is_over() -> bool:
        for row in sup.calls():
            sup.cancel_call(row["id"])
        return not sup.calls()

    eventually(is_over, what="every call has ended")


@pytest.mark.parametrize("command", HANGS)
def test_a_full_pool_whose_worker_hangs_is_seen_and_freed(
    sup: dspex.Supervisor, operator: DirectClient, made: Made, command: str
) -> None:
    """process: in Python, in C with the GIL, in a system call; cancelled, the worker is replaced."""
    made.call(command, {"secret": SECRET})
    eventually(lambda: any(row["phase"] == "running" for row in sup.calls()), what="it runs")
    made.call("nap", {"secret": SECRET})
    made.call("run", {"spec": {"module": "shop.programs:Answer", "state": SECRET}}, session=f"chat-{command}")
    eventually(lambda: len(operator.calls()) == 3, what="two wait")

    running, *queued = operator.calls("stuck")
    assert (running["command"], running["phase"], running["worker"]) == (command, "running", "stuck/0")
    assert sorted((row["command"], row["phase"], row["program"], row["worker"]) for row in queued) == [
        ("nap", "queued", "", ""),
        ("run", "queued", "shop.programs:Answer", ""),
    ]
    assert {row["session"] for row in queued} == {"", f"chat-{command}"}
    assert SECRET not in repr(operator.calls())
    assert 0 < running["deadline_s"] <= 120 and running["age_s"] > 0

    seen = eventually(lambda: in_stacks(operator, command), what="it has begun")
    assert seen["pid"] == running["pid"] and not seen["problem"], seen
    assert f"in {command}" in seen["stacks"] and BRIDGE.name in seen["stacks"]
    assert SECRET not in seen["stacks"]
    assert operator.stacks(seen["pid"])["generation"] == seen["generation"]

    assert operator.cancel_call(running["id"])
    assert not operator.cancel_call(running["id"])  # once
    eventually(lambda: made.ended, what="its caller is told")
    assert isinstance(made.ended[0], CallCancelled) and "by an operator" in str(made.ended[0])
    eventually(lambda: [r for r in operator.calls() if r["phase"] == "running"], what="the next one runs")


def test_a_queued_call_is_cancelled_and_its_worker_goes_on(sup: dspex.Supervisor, made: Made) -> None:
    """process"""
    made.call("nap")
    eventually(lambda: sup.calls() and sup.calls()[0]["phase"] == "running")
    worker = sup.calls()[0]["pid"]
    made.call("loop")
    eventually(lambda: len(sup.calls()) == 2)
    assert sup.cancel_call(sup.calls()[1]["id"])
    assert [row["pid"] for row in sup.calls()] == [worker]
    assert not sup.cancel_call(10**9)


def test_clients_and_their_sessions_are_told_apart(sup: dspex.Supervisor, operator: DirectClient) -> None:
    """process: by the connection's name, in calls and sessions too; a client that has gone leaves no row"""
    with contextlib.ExitStack() as stack:
        one, _ = (stack.enter_context(Client(operator.path)) for _ in range(2))
        calls = Made(one.call)
        calls.call("run", {"spec": {"module": "dspy.Predict"}, "seconds": 3600.0}, session="talk")
        eventually(lambda: operator.calls() and operator.calls()[0]["phase"] == "running")
        rows = {row["client"]: row for row in operator.clients() if row["role"] == "client"}
        (call,) = operator.calls()
        (session,) = operator.sessions("stuck", limit=1)
        assert len(rows) == 2 and call["client"] in rows
        assert rows[call["client"]]["requests"] == 1 and rows[call["client"]]["pid"] == os.getpid()
        assert (
            (session["client"], session["session"]) == (call["client"], call["session"]) == (session["client"], "talk")
        )
        assert (session["worker"], session["running"], session["waiting"]) == ("stuck/0", 1, 0)
        assert [row["role"] for row in operator.clients()].count("operator") == 1
        assert sup.clients()[0].keys() == operator.clients()[0].keys()
        assert operator.cancel_call(call["id"])
        calls.join()
    eventually(lambda: all(row["role"] == "operator" for row in operator.clients()), what="both are gone")
    end_calls(sup)
    assert [row["client"] for row in sup.sessions() if row["session"] == "talk"] == []


def test_answers_are_bounded_and_what_is_odd_is_refused(sup: dspex.Supervisor, operator: DirectClient) -> None:
    """process"""
    for side in (sup, operator):
        with pytest.raises(UnknownName, match="stuck"):
            side.calls("stack")
        with pytest.raises(UnknownName):
            side.sessions("stack")
        with pytest.raises(UnknownName, match="stuck/0"):
            side.stacks("stuck/7")
        for limit in (0, 1001):
            with pytest.raises(InvalidInput):
                side.calls(limit=limit)
    with pytest.raises(InvalidInput):
        operator.ask("call.cancel", {"id": "7"})


def test_a_worker_that_cannot_answer_is_described_by_the_kernel(sup: dspex.Supervisor) -> None:
    """process: a stopped process; it answers again once it goes on"""

    def at_rest() -> int:
        workers = sup.stats()["stuck"]["workers"]
        return [w["phase"] for w in workers] == ["ready"] and not sup.calls() and workers[0]["pid"]

    pid = eventually(at_rest, what="one worker is there")
    os.kill(pid, signal.SIGSTOP)
    try:
        seen = sup.stacks(pid)
        assert seen["stacks"] == "" and "state T (stopped)" in seen["problem"]
    finally:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: "in _lead" in sup.stacks(pid)["stacks"], what="it answers")


def test_many_looks_at_once_share_one_answer(sup: dspex.Supervisor, made: Made) -> None:
    """process"""
    made.call("sum_in_c")
    eventually(lambda: in_stacks(sup, "sum_in_c"), what="it has begun")
    seen: list[str] = []
    threads = [threading.Thread(target=lambda: seen.append(sup.stacks("stuck/0")["stacks"])) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 16 and all("in sum_in_c" in text for text in seen)
    assert sup.calls()[0]["phase"] == "running"  # and it was not disturbed
