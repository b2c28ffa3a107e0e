"""Process: the interpreter exits at once, whatever kind of host has calls in flight, and leaves nothing."""

from __future__ import annotations

import json
import signal
import time

import pytest

from dspex.testing import FakeLM
from tests.process.hosts.conftest import Scripts
from tests.support.hosts.host import EXIT_WITHIN, SLACK

START = """
sup = Supervisor(pools=[POOL]).start().wait_ready()
FOREVER = ("f", "sleep", {"seconds": 600})
"""

MAIN = """
signal.signal(signal.SIGALRM, lambda *_: sys.exit(7))

def alarm():
    until(lambda: is_busy(sup))
    tell(ending=1)
    os.kill(os.getpid(), signal.SIGALRM)

threading.Thread(target=alarm).start()
sup.call(*FOREVER)
"""

EXECUTOR = """
from concurrent.futures import ThreadPoolExecutor
executor = ThreadPoolExecutor(4)
calls = [executor.submit(sup.call, *FOREVER) for _ in range(4)]
until(lambda: is_busy(sup, 4))
tell(ending=1)
sys.exit(7)
"""

THREADS = """
threads = [threading.Thread(target=sup.call, args=FOREVER, daemon=n % 2 == 0) for n in range(4)]
threading.excepthook = lambda hook: None
for thread in threads:
    thread.start()
until(lambda: is_busy(sup, 4))
tell(ending=1)
sys.exit(7)
"""

LOOP = """
async def main():
    calls = [asyncio.ensure_future(sup.acall(*FOREVER)) for _ in range(3)]
    stream = sup.astream("f", "count", {"n": 10**9, "delay_s": 0.01})
    assert await anext(stream) == 0
    while not is_busy(sup, 4):
        await asyncio.sleep(0.005)
    tell(ending=1)
    sys.exit(7)
"""
ASYNCIO = LOOP + "asyncio.run(main())"
UVLOOP = LOOP + "import uvloop\nuvloop.run(main())"
STOPPED_LOOP = """
loop = asyncio.new_event_loop()
calls = [loop.create_task(sup.acall(*FOREVER)) for _ in range(4)]
while not is_busy(sup, 4):
    loop.run_until_complete(asyncio.sleep(0.005))
tell(ending=1)
sys.exit(7)
"""
TOOL = """
sup.register("hang", lambda request: threading.Event().wait())
threading.Thread(target=sup.call, args=("f", "ask", {"name": "hang", "arguments": {}}), daemon=True).start()
until(lambda: is_busy(sup))
tell(ending=1)
sys.exit(7)
"""
DEFAULT = """
dspex.configure(config=Config((POOL,)))
sup = dspex.default_supervisor().wait_ready()
FOREVER = ("f", "spin_c", {"seconds": 600})
"""

HOSTS = {
    "in a call, by a signal handler": START + MAIN,
    "threads of an executor made later": START + EXECUTOR,
    "threads": START + THREADS,
    "asyncio": START + ASYNCIO,
    "uvloop": START + UVLOOP,
    "a loop that runs no more": START + STOPPED_LOOP,
    "a tool that hangs": START + TOOL,
    "the default supervisor, the GIL held in C": DEFAULT + THREADS,
}


@pytest.mark.parametrize("code", HOSTS.values(), ids=HOSTS.keys())
def test_the_interpreter_exits_quickly(script: Scripts, code: str) -> None:
    """Process (scorecard 36): 2 s by contract, with the host's own exit code."""
    if "uvloop" in code:
        pytest.importorskip("uvloop")
    host = script(code)
    host.heard("ending")
    began = time.monotonic()
    host.finish(code=7)
    assert time.monotonic() - began < EXIT_WITHIN + SLACK, host.log()


NATIVELY = """
from concurrent.futures import ThreadPoolExecutor
lm = dspex.LM("openai/fake", cache=False, **json.loads(os.environ["ENDPOINT"]))
ask = lambda: dspex.predict("question -> answer", {"question": "a"}, lm=lm)
threading.excepthook = lambda hook: tell(raised=hook.exc_type.__name__)
threading.Thread(target=ask).start()
executor = ThreadPoolExecutor(1)
executor.submit(lambda: list(dspex.predict_stream("question -> answer", {"question": "b"}, lm=lm)))
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(7))
tell(waiting=1)
while True:
    signal.pause()
"""


def test_native_predictions_in_threads_do_not_hold_it_up(script: Scripts) -> None:
    """Process: what waits for a language model hears that there will be no answer; nothing is tried again."""
    with FakeLM("late", latency=120.0) as lm:
        endpoint = {"api_base": lm.api_base, "api_key": lm.api_key}
        host = script(NATIVELY, env={"ENDPOINT": json.dumps(endpoint)})
        host.heard("waiting")
        lm.wait_for(lambda: len(lm.requests) == 2, timeout=30.0)
        began = time.monotonic()
        host.signal(signal.SIGUSR1)
        host.finish(code=7)
        assert time.monotonic() - began < EXIT_WITHIN + SLACK
        assert [line["raised"] for line in host.said() if "raised" in line] == ["LMTransportError"], host.log()
        assert len(lm.requests) == 2


TOO_LATE = """
stopped = Supervisor(pools=[POOL]).start().wait_ready()
dspex.configure(config=Config((POOL,)))

def work():
    threading.main_thread().join()
    for function in (Supervisor(pools=[POOL]).start, dspex.default_supervisor, lambda: stopped.call("f", "ping")):
        for _ in range(2):
            try:
                function()
            except dspex.PoolClosed as error:
                tell(closed=str(error))

threading.Thread(target=work).start()
"""


def test_threads_that_outlive_the_main_thread_start_nothing(script: Scripts) -> None:
    """Process: the interpreter has begun to exit and waits for them; each verb says so at once, again and again."""
    host = script(TOO_LATE)
    host.finish()
    closed = [line["closed"] for line in host.said()]
    assert len(closed) == 6, host.log()
    assert ["exiting" in text for text in closed] == [True] * 4 + [False] * 2, closed
    assert host.log() == ""


EARLY = """
own = [PoolConfig(name, bridge="faults", size=4, env=POOL.env) for name in ("f", "g")]
sup = Supervisor(pools=own).start()
if AFTER:
    until(lambda: any(worker["pid"] for worker in sup.stats()["g"]["workers"]))
tell(ending=1)
sys.exit(7)
"""


@pytest.mark.parametrize("after", [False, True], ids=["no worker", "starting workers"])
def test_a_script_may_end_before_its_workers_are_ready(script: Scripts, after: bool) -> None:
    """Process: it ends at once, says nothing, and nothing that was being started is left."""
    host = script(f"AFTER = {after}\n{EARLY}")
    host.heard("ending")
    began = time.monotonic()
    host.finish(code=7)
    assert time.monotonic() - began < EXIT_WITHIN + SLACK
    assert host.log() == ""
