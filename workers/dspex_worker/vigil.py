"""The vigil: what holds a process to its supervisor where the kernel's lifeline cannot.

A thread waits until the lifeline's write end is closed, and then kills the process's own group. It needs the GIL, so
code that holds it in C is not ended by this (the template, another process, does that); hence it is the second choice,
for kernels and sandboxes that refuse O_ASYNC on pipes, or where DSPEX_LIFELINE=watch switches the first one off.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from pathlib import Path
from typing import NoReturn

from . import lifeline

KERNEL, WATCH = "kernel", "watch"
SWITCH = "DSPEX_LIFELINE"  # of the environment
LOOK_EVERY = 0.25  # seconds between looks at who the parent is
THREAD_PATIENCE = 1.0  # seconds for a thread that has ended to leave the kernel's list


class Hold:
    """Ties this process, a group's leader, to the write end of a pipe. `kind` says by what."""

    def __init__(self, read_end: int, *, parent: int | None = None) -> None:
        """`parent`, if given, must live on as well: a forked sibling of it may keep the pipe open."""
        self.kind = KERNEL
        self._read_end = read_end
        self._parent = parent
        self._thread: threading.Thread | None = None
        try:
            if os.environ.get(SWITCH) == WATCH:
                raise OSError("switched off")
            lifeline.arm(read_end)
        except OSError:
            self.kind = WATCH
            self._begin()

    def release(self) -> None:
        """Let the process outlive the pipe from now on; no thread of this is left."""
        if self._thread is None:
            lifeline.disarm(self._read_end)
            return
        os.write(self._wake, b"x")
        self._thread.join()
        self._thread = None
        os.close(self._wake)
        os.close(self._woken)
        deadline = time.monotonic() + THREAD_PATIENCE
        while len(list(Path("/proc/self/task").iterdir())) > threading.active_count() and time.monotonic() < deadline:
            time.sleep(0.001)  # whoever counts the threads next must not count this one

    def _begin(self) -> None:
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._watch, name="dspex-lifeline", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        poll.register(self._read_end, 0)  # the end of a pipe is always told
        while True:
            events = dict(poll.poll(None if self._parent is None else LOOK_EVERY * 1000))
            if self._woken in events:
                return
            if self._read_end in events or (self._parent is not None and os.getppid() != self._parent):
                end_group()


def end_group() -> NoReturn:
    """End this process, and its group if it leads one."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)
