"""Process: the rules of the call path that no fault of a worker shows (RULES C1 to C4, C11, C12, T8; clocks)."""

from __future__ import annotations

import ast
import ctypes
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import dspex
import dspex_worker
from dspex.errors import CallTimeout, PoolSaturated, WorkerDied
from tests.support.supervisors import Supervise
from tests.support.waiting import Caller, Gate, all_ready, eventually, forkserver_pid, lines, pids


def test_arguments_that_change_later_are_sent_as_they_were(supervise: Supervise) -> None:
    """Process (C1): what is queued is bytes; a caller may go on with its objects at once."""
    sup = supervise(size=1, concurrency=1)
    with Gate(sup) as gate:
        blocking = Caller(sup.call, *gate.command)
        gate.wait_for(1)
        arguments = {"list": [1, 2], "deep": {"k": "before"}}
        queued = Caller(sup.call, "f", "echo", arguments)
        eventually(lambda: sup.stats()["f"]["queued"] == 1)
        arguments["list"].append(3)  # type: ignore[attr-defined]
        arguments["deep"]["k"] = "after"  # type: ignore[index]
        gate.open()
        blocking.outcome()
        assert queued.outcome() == {"list": [1, 2], "deep": {"k": "before"}}


def test_a_call_that_cannot_be_encoded_leaves_no_trace(supervise: Supervise) -> None:
    """Process (C1): refused before the lock: nothing is counted, queued or written, and no slot is taken."""
    sup = supervise(size=1, concurrency=1)
    before = sup.stats()["f"]["counts"]
    for _ in range(100):
        with pytest.raises(TypeError):
            sup.call("f", "echo", {"value": object()})
    assert sup.stats()["f"]["counts"] == before
    assert sup.call("f", "echo", {"n": 1}) == {"n": 1}


def test_calls_reach_their_worker_in_the_order_of_their_dispatch(supervise: Supervise, tmp_path: Path) -> None:
    """Process (C2): eight threads and the engine write to one pipe; each thread's calls arrive whole and in order."""
    sup = supervise(size=1, concurrency=64)
    seen: list[tuple[int, int]] = []
    lock = threading.Lock()

    def note(request: Any) -> None:
        with lock:
            seen.append((request.arguments["thread"], request.arguments["n"]))

    async def noted(request: Any) -> None:
        note(request)

    sup.register("note", noted)

    def send(thread: int) -> None:
        pad = "x" * (40_000 if thread % 2 else 10)  # large frames fill the pipe, so that the engine must go on
        for n in range(150):
            arguments = {"name": "note", "arguments": {"thread": thread, "n": n, "pad": pad}}
            sup.call("f", "ask", arguments, timeout=60)

    for caller in [Caller(send, thread) for thread in range(8)]:
        caller.outcome(90)
    assert len(seen) == 8 * 150
    for thread in range(8):
        assert [n for t, n in seen if t == thread] == list(range(150))


def test_a_session_of_one_writer_keeps_submission_order_under_contention(supervise: Supervise) -> None:
    """Process (C2, S3): 300 unawaited appends from one thread, beside seven others that fill the pipe."""
    import asyncio

    sup = supervise(size=1, concurrency=8)
    is_over = threading.Event()

    def disturb() -> None:
        while not is_over.is_set():
            sup.call("f", "echo", {"pad": "x" * 50_000})

    disturbing = [Caller(disturb) for _ in range(3)]

    async def appends() -> list[int]:
        with sup.session("f") as session:
            tasks = [asyncio.create_task(session.acall("append", {"value": n})) for n in range(300)]
            return (await asyncio.gather(*tasks))[-1]

    assert asyncio.run(appends()) == list(range(300))
    is_over.set()
    for caller in disturbing:
        caller.outcome(30)


@pytest.mark.parametrize("command", ["spawn", "fork"])
def test_forked_children_of_a_worker_hold_none_of_its_pipes(supervise: Supervise, command: str) -> None:
    """Process (T8, X9): what a worker forks or execs has neither the protocol's descriptors nor the lifeline's."""
    sup = supervise(size=1)
    shared = _pipes(os.getpid()) & _pipes(pids(sup)[0])
    assert len(shared) == 4  # stdin, stdout, stderr and the lifeline
    child = sup.call("f", command, {"seconds": 60})
    stderr = str(Path(f"/proc/{child}/fd/2").readlink())
    eventually(lambda: _pipes(child) & shared == {stderr}, what="a forked child closes the rest as it begins")


FORKING = """
import os
from dspex_worker.bridge import Bridge
bridge = Bridge("forking")

@bridge.command()
def generations(ctx):
    child = os.fork()
    if child == 0:
        files = [os.open("/dev/null", os.O_RDONLY) for _ in range(64)]
        below = os.fork()
        if below == 0:
            lost = 0
            for file in files:
                try:
                    os.fstat(file)
                except OSError:
                    lost += 1
            os._exit(lost)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(below, 0)[1]))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


def test_children_of_forked_children_lose_no_file_of_their_own(supervise: Supervise, tmp_path: Path) -> None:
    """Process (T8): what was closed in the first child is not closed again in its children, by number."""
    script = tmp_path / "forking_bridge.py"
    script.write_text(FORKING)
    assert supervise(size=1, bridge=str(script)).call("f", "generations") == 0


def _pipes(pid: int) -> set[str]:
    names = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
    return {name for name in names if name.startswith("pipe:")}


def test_a_host_that_was_frozen_kills_nobody(supervise: Supervise) -> None:
    """Process (scorecard 31): the host sits in C for longer than every grace while a cancel is pending."""
    sup = supervise(size=1, concurrency=8, cancel_grace=0.3)
    before = pids(sup)
    with Gate(sup) as gate:
        neighbor = Caller(sup.call, *gate.command)
        gate.wait_for(1)
        for _ in range(3):
            with pytest.raises(CallTimeout):
                sup.call("f", "spin", {"seconds": 60.0}, timeout=0.05)
            ctypes.PyDLL(None).usleep(900_000)  # holds the GIL: no thread of ours runs meanwhile
            assert sup.call("f", "echo", {"n": 1}, timeout=20) == {"n": 1}
        gate.open()
        assert neighbor.outcome() == "f/0"
    assert pids(sup) == before


def test_durations_are_never_measured_on_the_wall_clock() -> None:
    """unit (scorecard 32): a clock that jumps changes nothing: `time.time` is for labels of events and files alone."""
    labels = {"events.py", "runfiles.py"}
    found = []
    for package in (dspex, dspex_worker):
        for path in (Path(package.__path__[0]) / sub for sub in ("", "pools")):
            for file in path.glob("*.py"):
                nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute)]
                found += [file.name for node in nodes if ast.unparse(node) in ("time.time", "datetime.now")]
    assert set(found) <= labels


def test_a_canary_shows_up_nowhere(supervise: Supervise, caplog: pytest.LogCaptureFixture) -> None:
    """Process (scorecard 40, X3): a secret in arguments, results and exceptions is in no argv, status, event or log."""
    import logging

    canary = "sk-canary-0123456789abcdef"
    caplog.set_level(logging.DEBUG, logger="dspex")
    sup = supervise(size=1, concurrency=1, queue_limit=1)
    events: list[str] = []
    sup.on_event(lambda event: events.append(repr(event)))
    texts: list[str] = []
    sup.call("f", "echo", {"secret": canary})
    sup.call("f", "print", {"text": canary})
    for command, arguments in (
        ("raise_error", {"type": "ValueError", "message": "no secret"}),
        ("spin", {"seconds": 60, "unknown": canary}),
        ("exit", {"code": 3, "x": canary}),
        ("sleep", {"seconds": 60.0}),
    ):
        try:
            sup.call("f", command, arguments, timeout=0.2)
        except Exception as error:
            texts.append(str(error))
    for _ in range(2):
        with pytest.raises(WorkerDied) as died:
            sup.call("f", "kill", {"signal": 11})
        texts.append(str(died.value))
    with Gate(sup) as gate:
        callers = [Caller(sup.call, *gate.command)]
        gate.wait_for(1)
        callers.append(Caller(sup.call, "f", "echo", {"secret": canary}))
        eventually(lambda: sup.stats()["f"]["queued"] == 1)
        with pytest.raises(PoolSaturated) as full:
            sup.call("f", "echo", {"secret": canary})
        texts.append(str(full.value))
        gate.open()
        for caller in callers:
            caller.outcome()
    sup.flush_events()
    processes = [Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in (*pids(sup), os.getpid())]
    shown = [*texts, *events, *processes, repr(sup.stats()), repr(sup.health()), caplog.text]
    assert len(texts) > 4
    assert not [text for text in shown if canary in text]


def test_the_race_of_late_replies(supervise: Supervise) -> None:
    """Process (C7, scorecard 11): deadlines that fall when the reply comes; DSPEX_RACES calls (default 2,000) at 1."""
    sup = supervise(size=2, concurrency=1, cancel_grace=30.0)
    each = int(os.environ.get("DSPEX_RACES", "2000")) // 4
    expired = [0] * 4

    def race(thread: int) -> None:
        for n in range(each):
            token = thread * 1_000_000 + n
            try:
                answer = sup.call("f", "echo", {"token": token}, timeout=0.0002 * (n % 10))
            except CallTimeout:
                expired[thread] += 1
            else:
                assert answer == {"token": token}

    began = time.monotonic()
    for caller in [Caller(race, thread) for thread in range(4)]:
        caller.outcome(300)
    print(f"{4 * each} calls, {sum(expired)} past their deadline, in {time.monotonic() - began:.1f} s")
    assert 0 < sum(expired) < 4 * each
    eventually(lambda: sup.stats()["f"]["in_flight"] == 0)
    assert sup.stats()["f"]["counts"]["deaths"] == 0


def test_effects_of_calls_that_were_given_up_happen_at_most_once(supervise: Supervise, tmp_path: Path) -> None:
    """Process (C5, K0): deadlines at random moments around the write; no effect is ever there twice."""
    sup = supervise(size=2, concurrency=2)
    effects = tmp_path / "effects"
    for n in range(400):
        try:
            sup.call("f", "effect", {"path": str(effects), "token": str(n)}, timeout=0.0001 * (n % 20))
        except CallTimeout:
            continue
    eventually(lambda: sup.stats()["f"]["in_flight"] == 0)
    ran = lines(effects)
    assert len(ran) == len(set(ran))


def test_the_counts_add_up(supervise: Supervise) -> None:
    """Process (T74): every submitted call is in exactly one of the counts, and each count is what callers heard."""
    sup = supervise(size=1, concurrency=2, queue_limit=2, cancel_grace=10.0)
    heard = {"answered": 0, "failed": 0, "expired": 0, "cancelled": 0}
    for n in range(20):
        sup.call("f", "echo", {"n": n})
        heard["answered"] += 1
    for _ in range(5):
        with pytest.raises(Exception, match="injected"):
            sup.call("f", "raise_error")
        heard["failed"] += 1
    for _ in range(5):
        with pytest.raises(CallTimeout):
            sup.call("f", "spin", {"seconds": 60}, timeout=0.01)
        heard["expired"] += 1
        eventually(lambda: sup.stats()["f"]["in_flight"] == 0)
    for _ in range(3):
        with sup.stream("f", "count", {"n": 1_000_000}) as stream:
            next(stream)
        heard["cancelled"] += 1
        eventually(lambda: sup.stats()["f"]["in_flight"] == 0)
    with pytest.raises(WorkerDied):
        sup.call("f", "exit", {"code": 1})
    heard["failed"] += 1
    all_ready(sup, 1)
    with Gate(sup) as gate:
        callers = [Caller(sup.call, *gate.command) for _ in range(4)]
        gate.wait_for(2)
        eventually(lambda: sup.stats()["f"]["queued"] == 2)
        with pytest.raises(PoolSaturated):
            sup.call("f", "ping")
        heard["failed"] += 1
        gate.open()
        for caller in callers:
            caller.outcome()
        heard["answered"] += 4
    counts = sup.stats()["f"]["counts"]
    assert {name: counts[name] for name in heard} == heard
    assert counts["submitted"] == sum(heard.values())
    assert counts["deaths"] == 1


@pytest.mark.parametrize("start_method", ["fork", "exec"])
def test_the_terminals_signals_reach_no_worker(supervise: Supervise, start_method: str) -> None:
    """Process (T28): fork server and workers lead sessions of their own, and a SIGINT that finds one is ignored."""
    sup = supervise(size=1, start_method=start_method)
    (worker,), forkserver = pids(sup), forkserver_pid(sup)
    assert [os.getsid(pid) for pid in (worker, forkserver)] == [worker, forkserver]
    for pid in (worker, forkserver):
        os.kill(pid, signal.SIGINT)
    assert sup.call("f", "spin", {"seconds": 0.2}) > 0
    assert (pids(sup), forkserver_pid(sup)) == ([worker], forkserver)
