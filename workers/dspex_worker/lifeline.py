"""The lifeline: a process group that the kernel kills when its supervisor lets go of a pipe, or dies.

The worker holds the read end of a pipe that never carries data, and asks the kernel to send SIGKILL to its own process
group when anything happens on it. Closing the write end is such a thing, and a dying supervisor closes everything: the
group is gone about a millisecond later, also while C code holds the GIL, whichever thread had spawned it.

PR_SET_PDEATHSIG is no substitute: it fires when the spawning *thread* ends. The owner and signal live in the open file
description, so every worker needs a pipe of its own: a shared one kills only the last that armed it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import sys

F_SETSIG = 10  # <fcntl.h> on Linux; Python does not name it
PR_SET_CHILD_SUBREAPER = 36


def arm(read_end: int) -> None:
    """Bind the calling process's group to `read_end`; exit at once if its write end is closed already.

    Raises:
        RuntimeError: the process does not lead its own group, so that the signal would hit its parent's.
    """
    group = os.getpgrp()
    if group != os.getpid():
        raise RuntimeError(f"process {os.getpid()} is in group {group}: only a group's leader may arm a lifeline")
    fcntl.fcntl(read_end, fcntl.F_SETOWN, -group)
    fcntl.fcntl(read_end, F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(read_end, fcntl.F_SETFL, fcntl.fcntl(read_end, fcntl.F_GETFL) | os.O_ASYNC)
    # A write end that closed before O_ASYNC was set sent no signal: look once.
    if is_cut(read_end):
        os._exit(1)


def disarm(read_end: int) -> None:
    """Let the group outlive the pipe from now on."""
    fcntl.fcntl(read_end, fcntl.F_SETFL, fcntl.fcntl(read_end, fcntl.F_GETFL) & ~os.O_ASYNC)


def is_cut(read_end: int) -> bool:
    """Whether the write end is closed."""
    poll = select.poll()
    poll.register(read_end, select.POLLIN)
    return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))


def is_supported() -> bool:
    """Whether this system has the mechanism (Linux)."""
    return sys.platform == "linux"


def become_subreaper() -> bool:
    """Adopt orphaned descendants instead of leaving them to init; False where the system cannot."""
    if not is_supported():
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
