"""Process: a host's signals and children stay its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process.hosts.conftest import Scripts

OWN = """
import socket
heard = []
for number in (signal.SIGCHLD, signal.SIGUSR1, signal.SIGALRM, signal.SIGTERM):
    signal.signal(number, lambda number, frame: heard.append(number))
reading, writing = socket.socketpair()
writing.setblocking(False)
signal.set_wakeup_fd(writing.fileno())
before, mask = handlers(), signal.pthread_sigmask(signal.SIG_BLOCK, ())
assert not heard

async def answer(request):
    await asyncio.sleep(0)
    return "asynchronously"

with Supervisor(pools=[POOL]) as sup:
    sup.register("plain", lambda request: subprocess.run(["sh", "-c", "exit 3"]).returncode)
    sup.register("async", answer)
    sup.wait_ready()
    assert sup.call("f", "ask", {"name": "plain", "arguments": {}}) == 3
    assert sup.call("f", "ask", {"name": "async", "arguments": {}}) == "asynchronously"

    # its children are reaped by nobody else, and it hears of them
    until(lambda: signal.SIGCHLD in heard)
    assert [subprocess.run(["sh", "-c", f"exit {n}"]).returncode for n in range(10)] == list(range(10))

    # a call goes on while signals come in; the handlers run
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    assert sup.call("f", "sleep", {"seconds": 0.5}) == 0.5
    assert [sup.call("f", "echo", {"n": n})["n"] for n in range(500)] == list(range(500))
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert heard.count(signal.SIGALRM) > 5
    os.kill(os.getpid(), signal.SIGUSR1)
    until(lambda: signal.SIGUSR1 in heard)

    # a worker's death is nothing of the host's
    del heard[:]
    try:
        sup.call("f", "kill")
    except dspex.WorkerDied:
        pass
    assert sup.call("f", "echo", {"n": 1}) == {"n": 1}
    assert signal.SIGCHLD not in heard
    tell(ready=1)
    until(lambda: signal.SIGTERM in heard)
assert handlers() == before
assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
assert signal.set_wakeup_fd(-1) == writing.fileno()
assert signal.SIGTERM in reading.recv(4096)
tell(done=1)
"""


def test_a_host_with_handlers_of_its_own(script: Scripts) -> None:
    """Process: handlers, the wake-up descriptor, the mask, `subprocess`, timers; none is touched or disturbed."""
    host = script(OWN)
    host.heard("ready")
    host.signal(signal.SIGTERM)
    host.finish()
    assert [line for line in host.said() if "done" in line], host.log()


WAITING = """
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
with Supervisor(pools=[POOL]) as sup:
    sup.register("plain", lambda request: "said")
    assert sup.call("f", "ask", {"name": "plain", "arguments": {}}) == "said"
    tell(ready=1)
    assert signal.sigwait([signal.SIGTERM, signal.SIGINT]) == signal.SIGTERM
    assert sup.call("f", "echo", {"n": 1}) == {"n": 1}
"""


def test_a_host_that_waits_for_signals(script: Scripts) -> None:
    """Process: `sigwait` gets what was blocked before the supervisor started."""
    host = script(WAITING)
    host.heard("ready")
    host.signal(signal.SIGTERM)
    host.finish()


TREE = """
from dspex_worker.memory.procfs import descendants
opened, heard, failures, answers = threading.Event(), [], [], []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, frame: heard.append(number))

def answer(request):
    opened.wait(60)
    return "said"

def call(sup):
    try:
        answers.append(sup.call("f", "ask", {"name": "held", "arguments": {}}))
    except dspex.errors.DspexError as error:
        answers.append(repr(error))

pool = PoolConfig("f", bridge="faults", size=2, concurrency=2, stop_grace=30.0, start_method=METHOD, env=POOL.env)
with Supervisor(pools=[pool]) as sup:
    sup.on_event(lambda event: failures.append(event.name) if "died" in event.name or "lost" in event.name else None)
    sup.register("held", answer)
    sup.wait_ready()
    until(lambda: sum(row["phase"] == "ready" for row in sup.stats()["f"]["workers"]) == 2)
    callers = [threading.Thread(target=call, args=(sup,)) for _ in range(4)]
    for caller in callers:
        caller.start()
    until(lambda: is_busy(sup, 4))
    tree = [*descendants(os.getpid()), os.getpid()]
    assert len(tree) == 4, tree
    tell(tree=tree)
    until(lambda: {*heard} == {signal.SIGTERM, signal.SIGINT})
    stopping = threading.Thread(target=sup.stop)
    stopping.start()
    until(lambda: not sup.is_running)
    opened.set()
    stopping.join()
    for caller in callers:
        caller.join()
    tell(answers=answers, failures=failures)
"""


@pytest.mark.parametrize("start_method", ["fork", "exec"])
def test_signals_to_the_whole_tree_leave_running_calls_their_grace(script: Scripts, start_method: str) -> None:
    """Process: SIGTERM by systemd's KillMode=control-group, SIGINT by a terminal: workers leave both to the host."""
    host = script(f"METHOD = {start_method!r}\n" + TREE)
    (tree,) = host.heard("tree")
    for number in (signal.SIGTERM, signal.SIGINT):
        for pid in tree:
            os.kill(pid, number)
    host.finish()
    (line,) = [line for line in host.said() if "answers" in line]
    assert line["answers"] == ["said"] * 4
    assert line["failures"] == []


AT_ANY_TIME = """
from dspex_worker.memory.procfs import descendants
failures, is_up = [], threading.Event()
pools = [PoolConfig(m, bridge="faults", size=2, start_method=m, env=POOL.env) for m in ("fork", "exec")]
sup = Supervisor(pools=pools)
sup.on_event(lambda event: failures.append(event.name) if event.level > 20 else None)

def signal_often():
    while not is_up.is_set():
        for pid in descendants(os.getpid()):
            for number in (signal.SIGTERM, signal.SIGINT):
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass

thread = threading.Thread(target=signal_often)
thread.start()
for _ in range(2):
    sup.start().wait_ready()
    until(lambda: all(row["phase"] == "ready" for pool in sup.stats().values() for row in pool["workers"]))
    for pool in pools:
        sup.pool(pool.name).recycle(reload=True, timeout=60)
is_up.set()
thread.join()
sup.flush_events()
sup.stop()
tell(failures=failures)
"""


def test_signals_at_any_time_of_a_start(script: Scripts) -> None:
    """Process: from their first instruction, fork servers and workers leave SIGTERM and SIGINT to the supervisor."""
    host = script(AT_ANY_TIME)
    host.finish(within=100)
    assert [line["failures"] for line in host.said() if "failures" in line] == [[]], host.log()


CHILDREN_BRIDGE = """
import multiprocessing, os, signal, subprocess, sys, time
from dspex_worker.bridge import Bridge
bridge = Bridge("children")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))  # as libraries do
at_import = os.fork()
if at_import == 0:
    for descriptor in range(3, 100):
        try:
            os.close(descriptor)
        except OSError:
            pass
    signal.pause()
    os._exit(7)

@bridge.command()
def of_import(ctx):
    os.kill(at_import, signal.SIGTERM)
    return at_import

def wait_for_signal(began):
    try:
        os.write(began, b"x")
        while True:
            time.sleep(0.01)  # not pause(): what comes right before it would not end it
    except KeyboardInterrupt:
        os._exit(1)

def started(way, began):
    if way == "subprocess":
        return subprocess.Popen(["sh", "-c", f"echo x >&{began}; exec sleep 600"], pass_fds=[began])
    if way == "multiprocessing":
        child = multiprocessing.get_context("fork").Process(target=wait_for_signal, args=(began,))
        child.start()
        return child
    child = os.fork()
    if child == 0:
        wait_for_signal(began)
    return child

@bridge.command()
def exits(ctx, way, number):
    reading, began = os.pipe()
    child = started(way, began)
    if number == signal.SIGINT:  # else at once: it may not have come to its first line
        os.read(reading, 1)
    os.close(reading)
    os.close(began)
    pid = getattr(child, "pid", child)
    os.kill(pid, number)
    if way == "fork":
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if way == "subprocess":
        return child.wait()
    child.join()
    return child.exitcode

@bridge.command()
def signalled(ctx):
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), number)
        for _ in range(1000):
            pass
    return os.getpid()
"""

# In CPython 3.13.0 a child that was forked off the main thread may never run its handlers, whoever forks it.
FORKED_OFF_MAIN_THREAD = """
import os, signal, sys, threading, time

def fork():
    reading, began = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.write(began, b"x")
            while True:
                time.sleep(0.01)
        except KeyboardInterrupt:
            os._exit(1)
    os.read(reading, 1)
    os.kill(child, signal.SIGINT)
    until = time.monotonic() + 5
    while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < until:
        time.sleep(0.01)
    if not ended[0]:
        os.kill(child, signal.SIGKILL)
        os._exit(3)

for _ in range(4):
    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
"""

CHILDREN = """
for concurrency in CONCURRENCIES:
    for method in ("fork", "exec"):
        pool = PoolConfig("f", bridge=BRIDGE, size=1, concurrency=concurrency, start_method=method, env=POOL.env)
        with Supervisor(pools=[pool]) as sup:
            for way in ("subprocess", "multiprocessing", "fork"):
                for number in (signal.SIGTERM, signal.SIGINT):
                    codes = {sup.call("f", "exits", {"way": way, "number": int(number)}) for _ in range(20)}
                    tell(way=way, number=int(number), codes=sorted(codes))
            pid = sup.call("f", "signalled")
            assert pid == sup.call("f", "signalled")  # both left it alive
            child = sup.call("f", "of_import")
            until(lambda: not os.path.exists(f"/proc/{child}") or " Z " in open(f"/proc/{child}/stat").read())
            assert sup.stats()["f"]["counts"]["deaths"] == 0
"""


def test_what_user_code_starts_in_workers_dies_of_signals_as_elsewhere(script: Scripts, tmp_path: Path) -> None:
    """Process: exec'd children have the defaults, forked ones Python's, from the first instant; the worker lives on."""
    bridge = tmp_path / "children_bridge.py"
    bridge.write_text(CHILDREN_BRIDGE)
    plain = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED_OFF_MAIN_THREAD], check=False, timeout=60)
    concurrencies = [1, 3] if plain.returncode == 0 else [1]
    host = script(f"BRIDGE = {str(bridge)!r}\nCONCURRENCIES = {concurrencies}\n" + CHILDREN)
    host.finish(within=30)
    rows = [line for line in host.said() if "way" in line]
    assert len(rows) == len(concurrencies) * 2 * 3 * 2, host.log()
    for row in rows:
        is_python = row["number"] == signal.SIGINT and row["way"] != "subprocess"
        assert row["codes"] == ([1] if is_python else [-row["number"]]), row
