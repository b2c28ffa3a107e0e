"""Keep this process's memory and environment, where keys are, from other processes of the same user (RULES X3).

Workers run as the user that the service runs as, so the kernel would let their code read /proc/PID/environ and
/proc/PID/mem of the service, or trace it. Only `dspex start` does this: to a process of somebody else's program it
would mean no core dumps and no debugger.
"""

from __future__ import annotations

import ctypes
import sys

_PR_SET_DUMPABLE = 4


def hide_from_workers() -> bool:
    """Let nobody but root read or trace this process, and no core be dumped of it; False where the system cannot.

    What this process starts is not affected: running a program ends it (prctl(2)).
    """
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)
