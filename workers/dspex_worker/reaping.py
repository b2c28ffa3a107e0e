"""Kill and reap the processes that workers leave behind. In the fork server, which adopts them.

Workers are subreapers: whatever is adopted here comes from a worker that is dead.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Container

from .memory import procfs

ORPHAN_PATIENCE = 1.0  # seconds; a process that SIGKILL does not end (a disk that hangs) must not stop the pool


def kill_process(pid: int) -> None:
    """Kill a process, if it is there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def kill_group(leader: int) -> None:
    """Kill a process group, if it is there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def kill_tree(leader: int) -> None:
    """Kill a group's leader, its group and its descendants; it must be unreaped, so that its pid is its own."""
    below = procfs.descendants(leader)
    kill_group(leader)
    for pid in below:
        kill_process(pid)


def kill_orphans(workers: Container[int]) -> None:
    """Kill and reap every child of this process that is no worker."""
    deadline = time.monotonic() + ORPHAN_PATIENCE
    while strangers := [pid for pid in procfs.children(os.getpid()) if pid not in workers]:
        for pid in strangers:
            kill_process(pid)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0 if time.monotonic() < deadline else os.WNOHANG)
        if time.monotonic() > deadline:
            break


def kill_all_children() -> None:
    """Kill and reap until this process has no children."""
    while pids := procfs.children(os.getpid()):
        for child in pids:
            for pid in (*procfs.descendants(child), child):
                kill_process(pid)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, 0 if pids else os.WNOHANG)[0]:  # its own children only: nobody else runs here
                pids = []
