"""Find out whether the process that a run file names lives, is gone, or cannot be seen from here.

Two witnesses, each of which may be missing: the pid with its start time, which only says something in the same pid
namespace with a /proc of that namespace; and the lock that an owner holds on its run file until its process ends, which
says something wherever the file can be seen. "Cannot be told" is never taken for "gone".
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from enum import StrEnum

from dspex_worker.memory.process_stat import PROC, stat_of


class Life(StrEnum):
    """Whether a process lives, as far as can be seen."""

    ALIVE = "alive"
    GONE = "gone"
    UNKNOWN = "unknown"


def life_of(pid: int, start_time: int, namespace: str) -> Life:
    """Return whether process `pid`, which began at `start_time`, lives; a zombie is gone."""
    if not namespace or namespace != namespace_of_pids():
        return Life.UNKNOWN  # numbers of another namespace, or of one that nobody knows
    began = start_time_of(pid)
    if began is not None and start_time:
        return Life.ALIVE if began == start_time else Life.GONE
    return Life.UNKNOWN if began is not None or _exists(pid) else Life.GONE


def start_time_of(pid: int) -> int | None:
    """Return when a process began, in clock ticks since boot; None if it is gone (a zombie is) or not to be seen."""
    try:
        found = stat_of(pid, PROC)
        return None if found.has_ended else found.start_time
    except (OSError, ValueError):
        return None


def namespace_of_pids() -> str:
    """Name the namespace whose pids this process sees in /proc; "" where there is no /proc of its own namespace."""
    try:
        if (PROC / "self").readlink().name != str(os.getpid()):
            return ""  # another namespace's /proc: its numbers are not those of our system calls
        return str((PROC / "self" / "ns" / "pid").readlink())
    except OSError:
        return ""


def lock(descriptor: int) -> bool:
    """Lock an open run file until this process ends; False where the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EINTR):
            raise
        return False
    return True


def is_locked(descriptor: int) -> bool | None:
    """Return whether a process has the open run file locked; None where that cannot be seen."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def _exists(pid: int) -> bool:
    """Return whether the number is in use; /proc may hide processes (hidepid, or one that may not be dumped)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return _is_no_zombie(pid)


def _is_no_zombie(pid: int) -> bool:
    try:
        return not stat_of(pid, PROC).has_ended
    except (OSError, ValueError):
        return True
