"""The lifeline: kill a process group when its supervisor closes a pipe, or dies.

A worker holds the read end of a pipe that never carries data, and asks the kernel to send SIGKILL to its own process
group when anything happens on it. Closing the write end is such a thing, and a dying supervisor closes everything: the
group is gone about a millisecond later, also while C code holds the GIL, whichever thread had spawned it.

Where kernels and sandboxes refuse O_ASYNC on pipes, or DSPEX_LIFELINE=watch switches it off, a thread waits for the
same and kills the group. It needs the GIL, so code that holds it in C is not ended by this (the fork server, another
process, does that).

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
import threading
import time
from pathlib import Path

from .exits import end_group

F_SETSIG = 10  # <fcntl.h> on Linux; Python does not name it
PR_SET_CHILD_SUBREAPER = 36
KERNEL, WATCH = "kernel", "watch"
SWITCH = "DSPEX_LIFELINE"  # of the environment
PARENT_CHECK_EVERY = 0.25  # seconds between looks at who the parent is
THREAD_PATIENCE = 1.0  # seconds for a thread that has ended to leave the kernel's list


class Lifeline:
    """Ties this process, a group's leader, to the write end of a pipe. `kind` names the means: kernel or thread."""

    def __init__(self, read_end: int, *, parent: int | None = None) -> None:
        """`parent`, if given, must live on as well: a forked sibling of it may keep the pipe open."""
        self.kind = KERNEL
        self._read_end = read_end
        self._parent = parent
        self._thread: threading.Thread | None = None
        try:
            if os.environ.get(SWITCH) == WATCH:
                raise OSError("switched off")
            arm(read_end)
        except OSError:
            self.kind = WATCH
            self._start_thread()

    def release(self) -> None:
        """Let the process outlive the pipe from now on; no thread of this is left."""
        if self._thread is None:
            disarm(self._read_end)
            return
        os.write(self._wake, b"x")
        self._thread.join()
        self._thread = None
        os.close(self._wake)
        os.close(self._woken)
        deadline = time.monotonic() + THREAD_PATIENCE
        while len(list(Path("/proc/self/task").iterdir())) > threading.active_count() and time.monotonic() < deadline:
            time.sleep(0.001)  # whoever counts the threads next must not count this one

    def _start_thread(self) -> None:
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._watch, name="dspex-lifeline", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        poll.register(self._read_end, 0)  # POLLHUP and POLLERR come unasked
        while True:
            events = dict(poll.poll(None if self._parent is None else PARENT_CHECK_EVERY * 1000))
            if self._woken in events:
                return
            if self._read_end in events or (self._parent is not None and os.getppid() != self._parent):
                end_group()


def arm(read_end: int) -> None:
    """Bind the calling process's group to `read_end`; exit at once if its write end is closed already.

    Raises:
        RuntimeError: the process does not lead its own group, so that the signal would hit its parent's.
        OSError: the kernel refuses it.
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
