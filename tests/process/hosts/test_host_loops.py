"""Process: hosts that are event loops of one kind or another, one after the other and at odds with each other."""

from __future__ import annotations

import signal

import pytest

from tests.process.hosts.conftest import Scripts

ALL_OF_IT = """
sup = Supervisor(pools=[POOL]).start()
left = []

async def until_idle():
    while sup.stats()["f"]["in_flight"]:
        await asyncio.sleep(0.005)

async def main():
    await asyncio.to_thread(sup.wait_ready)
    assert type(asyncio.get_running_loop()).__module__.startswith(KIND)
    found = await asyncio.gather(*[sup.acall("f", "echo", {"n": n}) for n in range(200)])
    assert found == [{"n": n} for n in range(200)]
    assert [chunk async for chunk in sup.astream("f", "count", {"n": 50})] == list(range(50))

    # a cancelled task, one that runs out of time, a stream left early: each gives its slot back
    task = asyncio.ensure_future(sup.acall("f", "spin", {"seconds": 600}))
    while not is_busy(sup):
        await asyncio.sleep(0.005)
    task.cancel()
    assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
    try:
        await sup.acall("f", "spin", {"seconds": 600}, timeout=0.1)
    except dspex.CallTimeout:
        pass
    async with sup.astream("f", "count", {"n": 10**9}) as stream:
        assert await anext(stream) == 0
    async with asyncio.timeout(20):
        await until_idle()

    # verbs that block, in the loop's own thread (a notebook's cell) and in another
    assert sup.call("f", "echo", {"n": 1}) == {"n": 1}
    assert list(sup.stream("f", "count", {"n": 3})) == [0, 1, 2]
    assert await asyncio.to_thread(sup.call, "f", "echo", {"n": 2}) == {"n": 2}

    # the loop's own children
    child = await asyncio.create_subprocess_exec("sh", "-c", "echo child; exit 3", stdout=subprocess.PIPE)
    assert (await child.communicate())[0] == b"child\\n" and child.returncode == 3

    # and calls that the loop's end finds in flight
    left.append(asyncio.ensure_future(sup.acall("f", "spin", {"seconds": 600})))
    left.append(sup.astream("f", "count", {"n": 10**9}))
    assert await anext(left[-1]) == 0

before = handlers()
for _ in range(3):
    run(main())
    left.clear()
    until(lambda: not sup.stats()["f"]["in_flight"])

# a loop that is closed under its tasks: their calls end at their deadlines
loop = new_loop()
task = loop.create_task(sup.acall("f", "spin", {"seconds": 600}, timeout=1))
while not is_busy(sup):
    loop.run_until_complete(asyncio.sleep(0.005))
loop.close()
task._log_destroy_pending = False
del task
import gc
gc.collect()
until(lambda: not sup.stats()["f"]["in_flight"])

assert sup.call("f", "echo", {"n": 3}) == {"n": 3}
assert handlers() == before
assert sup.stats()["f"]["counts"]["deaths"] == 0
sup.stop()
tell(done=1)
"""
KINDS = {
    "asyncio": "KIND, run, new_loop = 'asyncio', asyncio.run, asyncio.new_event_loop",
    "uvloop": "import uvloop\nKIND, run, new_loop = 'uvloop', uvloop.run, uvloop.new_event_loop",
}


@pytest.mark.parametrize("kind", KINDS)
def test_loops(script: Scripts, kind: str) -> None:
    """Process (C10): calls, streams, cancels, blocking verbs inside a loop, loops that end with calls in flight."""
    pytest.importorskip(kind)
    host = script(KINDS[kind] + ALL_OF_IT)
    host.finish(within=60)
    assert [line for line in host.said() if "done" in line], host.log()
    assert host.log() == ""


INTERRUPTED = """
sup = Supervisor(pools=[POOL]).start().wait_ready()

async def kernel():
    threading.Thread(target=lambda: (until(lambda: is_busy(sup)), tell(busy=1))).start()
    try:
        sup.call("f", "spin", {"seconds": 600})
    except KeyboardInterrupt:
        pass
    async with asyncio.timeout(20):
        while sup.stats()["f"]["in_flight"]:
            await asyncio.sleep(0.005)
    assert await sup.acall("f", "echo", {"n": 1}) == {"n": 1}

asyncio.new_event_loop().run_until_complete(kernel())
assert sup.stats()["f"]["counts"]["deaths"] == 0
tell(done=1)
"""


def test_a_blocking_verb_in_a_notebooks_cell_is_interrupted(script: Scripts) -> None:
    """Process (C6): Ctrl-C in a cell cancels the call, and the next cell runs."""
    host = script(INTERRUPTED)
    host.heard("busy")
    host.signal(signal.SIGINT)
    host.finish()
    assert [line for line in host.said() if "done" in line], host.log()
