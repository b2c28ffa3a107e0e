"""Detect that a supervisor is starting this process: it may not start one, or there would be no end of it.

Code that workers import may be the program itself (a bridge that is its own host, without a `__main__` guard), and an
"interpreter" may be a launcher that runs the program once more. The supervisor marks what it starts in the environment,
so that this program learns of it too; a worker removes the mark once it has started, for its commands may do as they
like. A program that is run with a cleaned environment finds out by its ancestors: a process that is starting has a name
(`/proc/<pid>/comm`) that says so. Threads that an import or a setup left running stay marked: what they do late is
still part of the start. How deep supervisors are nested is counted too, whoever starts them.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "DSPEX_STARTING"  # its value is the pool's name
DEPTH = "DSPEX_DEPTH"  # how many supervisors are above this process, and the pool's name
DEPTH_MOST = 4
HELD_KEY = "held-by-the-parent"  # what a worker sees in the place of a provider's key that the host has (X3)
STARTING, WARM, STARTED = "dspex-starting", "dspex-warm", "dspex-worker"  # names of processes; 15 letters at most
NO_PROCESSES = "no more processes may be started here: raise pids.max of the control group, or `ulimit -u`"
_ANCESTORS_MOST = 64
_left: weakref.WeakKeyDictionary[threading.Thread, str] = weakref.WeakKeyDictionary()


def begun_by() -> str | None:
    """Return the name of the pool that this process, or this thread of it, is being started for; None if it is not."""
    return os.environ.get(VARIABLE) or _left.get(threading.current_thread()) or _too_deep() or _below_a_start()


def marks(pool: str) -> dict[str, str]:
    """Return the environment variables that mark a process as starting for a pool."""
    return {VARIABLE: pool, DEPTH: f"{_depth() + 1} {pool}"}


def begin() -> None:
    """Name this process one that is starting."""
    _name(STARTING)


def end_of_warming() -> None:
    """Name this process a fork server that is warm; its children begin for themselves."""
    _name(WARM)


def end() -> None:
    """Remove the marks: the process has started. Called by the thread that started it."""
    _name(STARTED)
    pool = os.environ.pop(VARIABLE, None)
    if pool is not None:
        _left.update({thread: pool for thread in threading.enumerate() if thread is not threading.current_thread()})


def _depth() -> int:
    depth = os.environ.get(DEPTH, "").partition(" ")[0]
    return int(depth) if depth.isdecimal() else 0


def _too_deep() -> str | None:
    return os.environ[DEPTH].partition(" ")[2] if _depth() >= DEPTH_MOST else None


def _name(name: str) -> None:
    with contextlib.suppress(OSError):  # no /proc; the environment says it too
        Path("/proc/self/comm").write_text(name)


def _below_a_start() -> str | None:
    """Return the pool that an ancestor of this process is starting for; None if none is."""
    for pid, name in _ancestors():
        if name == STARTING:
            return _pool_of(pid) or "?"
    return None


def _ancestors() -> Iterator[tuple[int, str]]:
    """Yield (pid, name) of the parent, its parent and so on, as far as /proc shows them."""
    pid = os.getppid()
    for _ in range(_ANCESTORS_MOST):
        try:
            name, _, rest = Path(f"/proc/{pid}/stat").read_text(errors="replace").partition(" (")[2].rpartition(") ")
        except OSError:  # it has ended, or is not ours to see
            return
        yield pid, name
        pid = int(rest.split()[1])
        if pid == 0:
            return


def _pool_of(pid: int) -> str:
    """Return the mark in the environment that a process began with."""
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if entry.startswith(f"{VARIABLE}=".encode()):
                return os.fsdecode(entry.partition(b"=")[2])
    return ""
