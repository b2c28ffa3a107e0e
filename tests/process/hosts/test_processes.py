"""Process (C13): hosts that fork, also in the middle of something, and hosts with children of other makers."""

from __future__ import annotations

from tests.process.hosts.conftest import Scripts

CHILD = """
def in_child(function):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            function()
            sys.exit(0)
        except Exception as error:
            tell(failed=repr(error))
            sys.exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

def forked(function, *args, **options):
    try:
        function(*args, **options)
    except dspex.ForkedSupervisor:
        return
    raise AssertionError(f"{function} gives no ForkedSupervisor")
"""

HELD_LOCKS = """
from dspex import defaults; from dspex.services import services
dspex.configure(config=Config((POOL,)))
sup = dspex.default_supervisor().wait_ready()
held, go_on = threading.Event(), threading.Event()

def hold():
    with defaults._defaults._lock, services._making, sup.pool("f")._dispatcher.lock:
        held.set()
        go_on.wait()

threading.Thread(target=hold, daemon=True).start()
held.wait()

from dspex.loop_thread import LoopThread
private, new_loop, is_starting = LoopThread("private"), asyncio.new_event_loop, threading.Event()

def start_slowly():
    is_starting.set()
    go_on.wait()
    return new_loop()

asyncio.new_event_loop = start_slowly
threading.Thread(target=private.running, daemon=True).start()
is_starting.wait()
asyncio.new_event_loop = new_loop

def use():
    assert private.submit(asyncio.sleep(0, "slept")).result(10) == "slept"
    defaults.client()
    own = dspex.default_supervisor()
    assert own is not sup and own.config is sup.config
    assert own.call("f", "echo", {"n": 1}) == {"n": 1}
    services.services_of(own)
    forked(sup.call, "f", "ping")

in_child(use)
go_on.set()
assert sup.call("f", "echo", {"n": 2}) == {"n": 2}
assert sup.stats()["f"]["counts"]["deaths"] == 0
sup.stop()
"""


def test_a_child_of_a_fork_in_the_middle_of_things_starts_afresh(script: Scripts) -> None:
    """Process: a thread that does not exist in the child held every lock on the way when the host forked."""
    host = script(CHILD + HELD_LOCKS)
    host.finish()
    assert host.said() == [], host.said()


EVERY_VERB = """
sup = Supervisor(pools=[POOL]).start().wait_ready()
pool, session, stream = sup.pool("f"), sup.session("f"), sup.stream("f", "count", {"n": 10**6})
assert next(stream) == 0
held, go_on = threading.Event(), threading.Event()

def hold():
    with pool._dispatcher.lock:
        held.set()
        go_on.wait()

threading.Thread(target=hold, daemon=True).start()
held.wait()

def use():
    for verb in (sup.start, sup.wait_ready, sup.stats, sup.health, pool.stats, pool.recycle, pool.drain):
        forked(verb)
    for verb in (sup.call, sup.stream, pool.call, pool.stream):
        forked(verb, *(("f", "count") if verb in (sup.call, sup.stream) else ("count",)), {"n": 1})
    for verb in (session.call, session.stream):
        forked(verb, "count", {"n": 1})
    forked(sup.session, "f")
    forked(sup.pool, "f")
    forked(pool.resize, 3)
    forked(pool.reconfigure, pool.config)
    forked(pool.forgive, "digest")
    forked(next, stream)

    async def awaited():
        for call in (sup.acall("f", "ping"), pool.acall("ping"), session.acall("ping")):
            try:
                await call
            except dspex.ForkedSupervisor:
                continue
            raise AssertionError("no ForkedSupervisor")
        forked(sup.astream, "f", "count")
    asyncio.run(awaited())
    stream.close()
    session.close()
    sup.stop()
    assert not sup.is_running

in_child(use)
go_on.set()
assert next(stream) == 1
stream.close()
sup.stop()
"""


def test_every_verb_of_a_parents_supervisor_says_so_at_once(script: Scripts) -> None:
    """Process: `ForkedSupervisor`, though the pool's lock was held at the fork; closing is silent."""
    host = script(CHILD + EVERY_VERB)
    host.finish()
    assert host.said() == [], host.said()


GIVEN = """
mine, unstarted = Supervisor(pools=[POOL]), Supervisor(pools=[POOL])
dspex.configure(supervisor=mine)
mine.start().wait_ready()
assert dspex.default_supervisor() is mine

def use():
    forked(dspex.default_supervisor)
    with unstarted:
        assert unstarted.call("f", "echo", {"n": 1}) == {"n": 1}
        assert unstarted._engine.is_alive

in_child(use)
in_child(use)
with unstarted:
    assert unstarted.call("f", "echo", {"n": 1}) == {"n": 1}
assert mine.call("f", "echo", {"n": 1}) == {"n": 1}
mine.stop()
"""


def test_a_supervisor_belongs_to_the_process_that_starts_it(script: Scripts) -> None:
    """Process: one given to `configure` is not replaced behind the user's back; one not started is anybody's."""
    host = script(CHILD + GIVEN)
    host.finish()
    assert host.said() == [], host.said()


OTHERS = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from tests.support.hosts.children import pool_of, use_default

dspex.configure(config=Config((POOL,)))
sup = dspex.default_supervisor().wait_ready()
answers = []
busy = threading.Thread(target=lambda: answers.extend(sup.call("f", "echo", {"n": n})["n"] for n in range(2000)))
busy.start()
for method in ("fork", "spawn"):
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    children = [context.Process(target=use_default, args=(queue, POOL)) for _ in range(2)]
    for child in children:
        child.start()
    theirs = [queue.get() for _ in children]
    for child in children:
        child.join(20)
        assert child.exitcode == 0, (method, child.exitcode)
    assert not {*theirs} & {row["pid"] for row in sup.stats()["f"]["workers"]}
    tell(children=theirs)
for method in ("fork", "spawn"):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as executor:
        assert list(executor.map(pool_of, range(4))) == [0, 1, 4, 9]
busy.join()
assert answers == list(range(2000))
assert sup.stats()["f"]["counts"]["deaths"] == 0
tell(done=1)
"""


def test_children_of_multiprocessing_and_executors(script: Scripts) -> None:
    """Process: each child that needs one has a supervisor of its own, gone with it; the host's calls go on."""
    from tests.support.hosts.host import gone
    from tests.support.paths import ROOT

    host = script(f"sys.path.insert(0, {str(ROOT)!r})\nif __name__ == '__main__':\n" + _indented(OTHERS))
    host.finish(within=60)
    gone(pid for line in host.said() for pid in line.get("children", ()))
    assert [line for line in host.said() if "done" in line], host.log()


def _indented(code: str) -> str:
    return "".join(f"    {line}\n" for line in code.splitlines())
