"""Process (C13): hosts that fork at any instant of a start, a replacement or a reload, with children that live on."""

from __future__ import annotations

import os
import signal

from tests.process.hosts.conftest import Scripts
from tests.support.hosts.host import Host, gone

FORKING = """
import multiprocessing
sys.setswitchinterval(1e-5)  # a thread that forks comes between any two steps of the engine
children, reading, writing, ends = [], *os.pipe(), threading.Event()

def live_on():
    os.close(writing)
    os.read(reading, 1)
    os._exit(0)

def fork_plainly():
    child = os.fork()
    if child == 0:
        live_on()
    children.append(child)

def fork_by_multiprocessing():
    child = multiprocessing.get_context("fork").Process(target=live_on)
    child.start()
    children.append(child.pid)

def while_forking(function, fork, most=40):
    # forks at every instant of what the engine does, until that is done
    done, begun = threading.Event(), threading.Event()

    def work():
        begun.set()
        try:
            function()
        except BaseException as error:
            tell(failed=repr(error))
        done.set()

    worker = threading.Thread(target=work)
    worker.start()
    begun.wait()
    for _ in range(most):
        if done.is_set():
            break
        fork()
    worker.join(60)
    assert not worker.is_alive()

def ready():
    return {row["pid"] for row in sup.stats()["f"]["workers"] if row["phase"] == "ready"}

def replace():
    victim = min(ready())
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in ready() and len(ready()) == 2)

def forkserver():
    return int(sup.stats()["f"]["reaper"].removeprefix("fork server "))

def lives(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False

def end_children():
    os.close(writing)
    for child in children:
        os.waitpid(child, 0)
"""

EVERYTHING = """
for fork in (fork_plainly, fork_by_multiprocessing):
    seen = set()
    for _ in range(3):
        sup = Supervisor(pools=[POOL])
        while_forking(lambda: sup.start().wait_ready(), fork)
        until(lambda: len(ready()) == 2)
        seen |= ready()
        while_forking(replace, fork)
        seen |= ready() | {forkserver()}
        while_forking(lambda: sup.pool("f").recycle(reload=True, timeout=30), fork)
        seen |= ready() | {forkserver()}
        assert sup.call("f", "echo", {"n": 1}) == {"n": 1}
        sup.stop()
        until(lambda: not any(map(lives, seen)))
assert all(map(lives, children)) and len(children) > 50
tell(done=len(children))
multiprocessing.process._children.clear()
end_children()
"""


def test_nothing_waits_for_a_child_of_a_fork(script: Scripts) -> None:
    """Process: starts, replacements and reloads end; after a stop no worker lives, though the children do."""
    host = script(FORKING + EVERYTHING)
    host.finish(within=110)
    assert not [line for line in host.said() if "failed" in line], host.said()
    assert [line for line in host.said() if "done" in line], host.log()


THREE_AT_ONCE = """
sup = Supervisor(pools=[POOL])
forkers = [threading.Thread(target=lambda: [fork_plainly() for _ in range(25)]) for _ in range(3)]
for forker in forkers:
    forker.start()
sup.start().wait_ready()
until(lambda: len(ready()) == 2)
for forker in forkers:
    forker.join()
tell(workers=[*ready(), forkserver()], children=children)
signal.pause()
"""


def _killed(host: Host) -> None:
    """Kill the host while its children live; nothing of its pool may outlive it."""
    (workers,), (children,) = host.heard("workers"), host.heard("children")
    try:
        host.signal(signal.SIGKILL)
        gone(workers)
        host.process.wait(10)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
    host.is_gone()


def test_workers_end_with_a_killed_host_whose_children_live_on(script: Scripts) -> None:
    """Process: threads forked all through the start; no child holds a lifeline in the host's stead."""
    _killed(script(FORKING.replace("os.read(reading, 1)", "signal.pause()") + THREE_AT_ONCE))


HELD_BACK = """
from dspex import forks
is_inside, go_on = False, threading.Event()

def hold():
    global is_inside
    while not go_on.is_set():
        with forks.held_back():
            is_inside = True
            sum(range(300))
            is_inside = False

threading.Thread(target=hold, daemon=True).start()
for _ in range(100):
    child = os.fork()
    if child == 0:
        os._exit(is_inside)
    assert os.waitpid(child, 0)[1] == 0
go_on.set()

# the one that holds them back may fork, and so may its child
with forks.held_back():
    child = os.fork()
    if child == 0:
        grandchild = os.fork()
        os._exit(grandchild and os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
    assert os.waitpid(child, 0)[1] == 0

# a signal handler that raises, again and again, while a fork waits
class Heard(Exception):
    pass

def hear(*_):
    heard.append(1)
    raise Heard

def hold_until_heard():
    with forks.held_back():
        held.set()
        until(lambda: len(heard) >= 3)

heard, held = [], threading.Event()
signal.signal(signal.SIGALRM, hear)
thread = threading.Thread(target=hold_until_heard)
thread.start()
held.wait()
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
try:
    child = os.fork()
    if child == 0:
        signal.setitimer(signal.ITIMER_REAL, 0)
        os._exit(0)
except Heard:
    pass
finally:
    while True:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
            break
        except Heard:
            pass
thread.join()
assert os.wait()[1] == 0

# one that waits for the fork itself does not stop it for ever
forks.PATIENCE = 0.05
held, go_on = threading.Event(), threading.Event()

def hold_on():
    with forks.held_back():
        held.set()
        go_on.wait()

thread = threading.Thread(target=hold_on)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    with forks.held_back():  # free here: who held them back in the parent is not in this process
        os._exit(0)
assert os.waitpid(child, 0)[1] == 0
go_on.set()
thread.join()
with forks.held_back():
    pass
tell(done=1)
"""


def test_a_fork_waits_for_what_it_must_not_come_into(script: Scripts) -> None:
    """Process: by any thread, at any time, and not for ever."""
    host = script(FORKING + HELD_BACK)
    host.finish(within=60)
    assert [line for line in host.said() if "done" in line], host.log()


FORKED_TWICE = """
sup = Supervisor(pools=[POOL]).start().wait_ready()
child = os.fork()
if child == 0:
    signal.alarm(20)
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(50)]  # under the numbers that were the parent's
    grandchild = os.fork()
    if grandchild == 0:
        os._exit(sum(not os.path.exists(f"/proc/self/fd/{one}") for one in opened))
    os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
sup.stop()
tell(done=1)
"""


def test_a_grandchild_keeps_the_files_of_its_own_parent(script: Scripts) -> None:
    """Process: a child closes what is the host's once; later the same numbers are its own files'."""
    host = script(FORKING + FORKED_TWICE)
    host.finish()
    assert [line for line in host.said() if "done" in line], host.log()
