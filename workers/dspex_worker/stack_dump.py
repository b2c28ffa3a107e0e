"""Write this process's Python stacks, at a signal, into a file in memory that the supervisor opens.

faulthandler's handler is C code that needs no GIL, so it answers also while C code holds that. The stacks hold files,
lines and functions, and no value. A thread that blocks every signal answers through another one; a process whose
threads all do does not answer at all.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import os
import signal

from .stdio import PRIVATE

SIGNAL = signal.SIGRTMAX - 3  # of those that nobody else uses; by default it ends a process: see `listen`
FILE = "dspex-stacks"


def listen() -> int:
    """Write stacks at each `SIGNAL` from now on; return the file's descriptor, -1 where that is not possible."""
    try:
        made = os.memfd_create(FILE, os.MFD_CLOEXEC)
    except OSError:  # a kernel or sandbox without it
        return -1
    descriptor = fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, PRIVATE)
    os.close(made)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)  # the supervisor empties it before each use
    faulthandler.register(SIGNAL, file=descriptor, all_threads=True, chain=False)
    return descriptor


def forget() -> None:
    """In a forked child of user code, whose stacks nobody asks for: the file is about to be closed."""
    with contextlib.suppress(ValueError, RuntimeError):
        faulthandler.unregister(SIGNAL)
