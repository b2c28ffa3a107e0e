"""Take stdin and stdout away from user code, before any of it is imported.

The protocol moves to private descriptors; 0 becomes /dev/null and 1 becomes stderr. So `print`, `os.write(1, ...)`, a
C library's `puts` and a child process can write what they like: the supervisor keeps it with stderr's end, and it is
never inside a frame.
"""

from __future__ import annotations

import fcntl
import os
import sys

PRIVATE = 10  # private descriptors start here, out of the way of anything that assumes 0, 1, 2 and "the next few"


def claim() -> tuple[int, int]:
    """Return private, close-on-exec descriptors for (frames in, frames out); call it once, first."""
    incoming = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, PRIVATE)
    outgoing = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, PRIVATE)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return incoming, outgoing
