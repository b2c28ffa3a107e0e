"""Write this process's Python stacks into a file in memory that the supervisor opens: asked by a message, or a signal.

The message is for a process that works: whoever reads it holds the GIL, so no other thread moves meanwhile. The signal
is for one that does not answer, because C code holds the GIL, say: faulthandler's handler needs none. It reads what
other threads may be changing, and can crash a process that runs Python code meanwhile; so it comes second.

The stacks hold files, lines and functions, and no value.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import os
import signal

SIGNAL = signal.SIGRTMAX - 3  # of those that nobody else uses; by default it ends a process: see `listen`
FILE = "dspex-stacks"
_LEAST = 10  # private descriptors start here, see `stdio`


def listen() -> int:
    """Write stacks at each `SIGNAL` from now on; return the file's descriptor, -1 where that is not possible."""
    try:
        made = os.memfd_create(FILE, os.MFD_CLOEXEC)
    except OSError:  # a kernel or sandbox without it
        return -1
    descriptor = fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, _LEAST)
    os.close(made)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)  # the supervisor empties it before each use
    faulthandler.register(SIGNAL, file=descriptor, all_threads=True, chain=False)
    return descriptor


def write(descriptor: int, number: int) -> None:
    """Write the stacks now, and after them the `end` of this number."""
    with contextlib.suppress(OSError, ValueError):  # user code has closed the file
        faulthandler.dump_traceback(descriptor, all_threads=True)
        os.write(descriptor, end(number))


def end(number: int) -> bytes:
    """Return what stands behind stacks that were asked for with this number."""
    return f"\nend {number}\n".encode()


def forget() -> None:
    """In a forked child of user code, whose stacks nobody asks for: the file is about to be closed."""
    with contextlib.suppress(ValueError, RuntimeError):
        faulthandler.unregister(SIGNAL)
