"""End the process: the exit statuses of workers and fork servers, and the two ways to end at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import NoReturn

EXIT_BOOT = 70  # EX_SOFTWARE of <sysexits.h>: it could not start, and its stderr says why
EXIT_BROKEN = 70  # the runtime itself failed
EXIT_MEMORY = 71  # EX_OSERR: no memory was left to read what the supervisor sends
EXIT_PROTOCOL = 76  # EX_PROTOCOL: what came is no message


def leave(status: int) -> NoReturn:
    """End the process now: other threads may be anywhere, and joining them could take for ever."""
    with contextlib.suppress(BaseException):  # stderr may be gone, or its lock held by a thread that will not end
        sys.stderr.flush()
    os._exit(status)


def end_group() -> NoReturn:
    """End this process, and its group if it leads one."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def report(text: str) -> None:
    """Write to descriptor 2; not by print, since user code may have closed `sys.stderr`."""
    with contextlib.suppress(OSError):
        os.write(2, text.encode(errors="replace"))
