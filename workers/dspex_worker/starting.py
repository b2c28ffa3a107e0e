"""Detect that a supervisor is starting this process: it may not start one, or there would be no end of it.

Code that workers import may be the program itself (a bridge that is its own host, without a `__main__` guard), and an
"interpreter" may be a launcher that runs the program once more. The supervisor marks what it starts in the environment,
so that this program learns of it too; a worker removes the mark once it has started, for its commands may do as they
like. Threads that an import or a setup left running stay marked: what they do late is still part of the start. How deep
supervisors are nested is counted too, whoever starts them.
"""

from __future__ import annotations

import os
import threading
import weakref

VARIABLE = "DSPEX_STARTING"  # its value is the pool's name
DEPTH = "DSPEX_DEPTH"  # how many supervisors are above this process, and the pool's name
DEPTH_MOST = 4
_left: weakref.WeakKeyDictionary[threading.Thread, str] = weakref.WeakKeyDictionary()


def begun_by() -> str | None:
    """Return the name of the pool that this process, or this thread of it, is being started for; None if it is not."""
    return os.environ.get(VARIABLE) or _left.get(threading.current_thread()) or _too_deep()


def marks(pool: str) -> dict[str, str]:
    """Return the environment variables that mark a process as starting for a pool."""
    return {VARIABLE: pool, DEPTH: f"{_depth() + 1} {pool}"}


def end() -> None:
    """Remove the mark: the process has started. Called by the thread that started it."""
    pool = os.environ.pop(VARIABLE, None)
    if pool is not None:
        _left.update({thread: pool for thread in threading.enumerate() if thread is not threading.current_thread()})


def _depth() -> int:
    depth = os.environ.get(DEPTH, "").partition(" ")[0]
    return int(depth) if depth.isdecimal() else 0


def _too_deep() -> str | None:
    return os.environ[DEPTH].partition(" ")[2] if _depth() >= DEPTH_MOST else None
