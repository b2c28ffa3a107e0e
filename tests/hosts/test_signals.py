"""Process: a host's signals and children stay its own."""

from __future__ import annotations

import signal

from .conftest import Scripts

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
