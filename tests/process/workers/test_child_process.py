"""Process: how the supervisor's children are started: what they inherit, and what is known of their end."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from dspex.errors import SettingsError, WorkerBootError
from dspex.pools.processes.child_process import ChildProcess
from dspex.pools.supervisor import Supervisor
from tests.support.supervisors import Supervise
from tests.support.waiting import forkserver_pid

LISTING = "import os; print(*sorted(int(fd) for fd in os.listdir('/proc/self/fd')), os.getsid(0) == os.getpid())"


def _run(code: str, passed: list[int]) -> tuple[ChildProcess, str]:
    """Run `code` to its end; give its process, and what it printed."""
    reading, output = os.pipe()
    with os.fdopen(reading) as file:
        process = ChildProcess([sys.executable, "-c", code], output=output, passed=passed, environment={})
        os.close(output)
        said = file.read()
    assert process.wait(20)
    os.close(process.pidfd)
    return process, said


def test_a_child_inherits_what_is_passed_and_nothing_else() -> None:
    """Process: also where the host has left descriptors inheritable; it leads a session of its own."""
    kept = [os.open(os.devnull, os.O_RDONLY) for _ in range(8)]
    for descriptor in kept:
        os.set_inheritable(descriptor, True)
    _, said = _run(LISTING, kept[:2])
    for descriptor in kept:
        os.close(descriptor)
    assert said.split() == ["0", "1", "2", "3", "4", "5", "True"]  # 5 is the listing's own


@pytest.mark.parametrize("swapped", [False, True])
def test_passed_descriptors_may_have_each_others_numbers(swapped: bool) -> None:
    """Process: the first is 3 in the child and the second 4, whichever numbers they have here."""
    ends = [os.pipe(), os.pipe()]
    passed = [reading for reading, _ in ends]
    for (_, writing), word in zip(ends, (b"first", b"second"), strict=True):
        os.write(writing, word)
        os.close(writing)
    _, said = _run("import os; print(os.read(3, 9), os.read(4, 9))", passed[::-1] if swapped else passed)
    for descriptor in passed:
        os.close(descriptor)
    assert said == ("b'second' b'first'\n" if swapped else "b'first' b'second'\n")


@pytest.mark.parametrize(
    ("code", "status"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", -9)], ids=["exit", "signal"]
)
def test_its_end_is_known(code: str, status: int) -> None:
    """Process: the exit code, or the signal as a negative number."""
    assert _run(code, [])[0].status == status


def test_a_host_that_reaps_everything_may() -> None:
    """Process: its status is then unknown, and nobody waits for it."""
    process = ChildProcess([sys.executable, "-c", ""], output=2, passed=[], environment={})
    os.waitpid(process.pid, 0)
    assert process.wait(20)
    assert process.status is None
    process.kill()
    assert not process.is_stopped()
    os.close(process.pidfd)


def test_signals_wait_until_the_child_decides() -> None:
    """Process: SIGTERM and SIGINT are blocked at its start, and SIGPIPE is as in a shell."""
    code = "import signal; print(sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))))"
    assert _run(code, [])[1] == f"{sorted([int(signal.SIGINT), int(signal.SIGTERM)])}\n"


def test_a_forkserver_leads_a_session_where_python_cannot_see_to_it(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process: built for an old C library, Python has no `setsid` in posix_spawn."""
    spawn = os.posix_spawn

    def old(*args: Any, setsid: bool = False, **options: Any) -> int:
        if setsid:
            raise NotImplementedError
        return spawn(*args, **options)

    monkeypatch.setattr(os, "posix_spawn", old)
    sup = supervise(size=1)
    pid = forkserver_pid(sup)
    assert os.getsid(pid) == pid
    assert sup.call("f", "echo", {"n": 1}) == {"n": 1}


def test_no_more_processes_is_said_in_words(supervise: Supervise, monkeypatch: pytest.MonkeyPatch) -> None:
    """Process: a full pids cgroup, or the user's limit."""

    def full(*args: Any, **options: Any) -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "posix_spawn", full)
    sup = supervise(wait=False)
    with pytest.raises(WorkerBootError, match=r"no more processes .* pids\.max"):
        sup.wait_ready(20)


def test_a_process_without_epoll_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unit: gevent and eventlet take it away."""
    monkeypatch.delattr(select, "epoll")
    with pytest.raises(SettingsError, match="gevent"):
        Supervisor()


def test_a_failed_start_leaves_nothing_open() -> None:
    """Process: no such program."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(FileNotFoundError):
        ChildProcess(["/nonexistent"], output=2, passed=[1, 2], environment={})
    assert len(list(Path("/proc/self/fd").iterdir())) == before
