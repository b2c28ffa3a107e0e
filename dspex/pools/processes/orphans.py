"""Kill and reap a dead worker's group when its fork server is gone (T6) or slow (T3).

Its group must be killed here, and reaped if this is init; how it ended is in /proc until it is reaped. As long as a
member lives, the kernel gives the session's number to nobody else, so members are known by it. Not covered: what left
the worker's session. Runs on the engine's thread; a scan of /proc, rare.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from pathlib import Path
from typing import Any

from dspex_worker.memory.procfs import descendants

from .worker_process import WorkerProcess

PATIENCE_MS = 100  # for one that was killed to end; it takes less than a millisecond


def end_of(pid: int, parent: int) -> dict[str, Any] | None:
    """Return how the dead child of `parent` ended; None once it was reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        state, ppid, status = fields[0], int(fields[1]), int(fields[49])
    except (OSError, IndexError, ValueError):
        return None
    if state != b"Z" or ppid != parent:
        return None
    code = os.waitstatus_to_exitcode(status)
    return {"exit_code": code if code >= 0 else None, "signal": -code if code < 0 else None}


def end_session(leader: int) -> None:
    """Kill the members of the session that the dead worker `leader` led, and reap those that fell to this process."""
    if not leader:  # it never began
        return
    for pid in [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdecimal()]:
        if pid != leader and _session_of(pid) == leader:
            with contextlib.suppress(OSError):  # it is gone, or no descriptor is left
                _end(pid, leader)


def kill_with_descendants(worker: WorkerProcess) -> None:
    """Kill one whose fork server is gone, also what left its group; nobody else would find that afterwards."""
    below = []
    for pid in descendants(worker.pid):
        with contextlib.suppress(OSError):  # it has ended
            below.append(os.pidfd_open(pid))
    worker.kill()
    for pidfd in below:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)


def _end(pid: int, leader: int) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        if _session_of(pid) == leader:  # else its pid was reused before it was opened
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            _reap(pidfd)
    finally:
        os.close(pidfd)


def _session_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[3])
    except (OSError, IndexError, ValueError):
        return 0


def _reap(pidfd: int) -> None:
    if os.getpid() != 1:
        return
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll(PATIENCE_MS)
    with contextlib.suppress(ChildProcessError):  # another's child
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
