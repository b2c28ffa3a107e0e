"""Set a worker's limits before it runs user code: its data segment, its OOM score, core files.

The data limit stops at once what the poll (see `monitor`) would see only afterwards: one allocation of gigabytes fails
with MemoryError before a page of it exists. It is per process and inherited, and counts private writable address space,
so also thread stacks that nobody has touched (8 idle threads: 67 MB); these are granted on top. It is not set where
optimizers run: MIPROv2 takes a MemoryError for a bad score and reports success.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from pathlib import Path

from ..failure import Failure
from .procfs import held

MIB = 1024 * 1024
IDLE_SHARE = 1.5  # a cap must be so many times what an idle worker takes
DATA_SHARE = 1.25  # the data limit is so many times the cap: the poll, which tells more, is to be first where it can
SPARE_THREADS = 64  # whose stacks are granted before they exist: a pool of threads starts faster than anybody looks
RESERVE = 16 * MIB  # granted once memory has run out, so that the error can be reported
OOM_STEP = 500  # of 1000, added to the host's own score
CHAIN_LIMIT = 20  # causes of an exception that are looked through


def prefer_as_oom_victim() -> None:
    """Ask the kernel to take this process before its host when memory runs out; and leave no core with keys in it."""
    path = Path("/proc/self/oom_score_adj")
    with contextlib.suppress(OSError, ValueError):  # not permitted in some containers, and only a preference
        path.write_text(str(min(1000, max(0, int(path.read_text())) + OOM_STEP)))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_data(cap: int, threads: int) -> None:
    """Let allocations far beyond `cap` bytes fail, in this process and in each that it starts."""
    _set_data_limit(0, data_limit(cap, threads))


def grant_stacks(pid: int, cap: int, threads: int) -> None:
    """Raise the data limit of a process, if it has one, by the stacks of the threads that it has by now."""
    with contextlib.suppress(OSError, ValueError):  # it has ended, or is not ours any more
        soft, _ = resource.prlimit(pid, resource.RLIMIT_DATA)
        if data_limit(cap, 0) <= soft < data_limit(cap, threads):  # a lower one is the process's own
            _set_data_limit(pid, data_limit(cap, threads))


def data_limit(cap: int, threads: int) -> int:
    """Return the limit in bytes for a process with so many threads."""
    return int(cap * DATA_SHARE) + (threads + SPARE_THREADS) * _stack_size()


def open_reserve() -> None:
    """Raise the data limit by the little that it takes to report that memory is exhausted."""
    with contextlib.suppress(OSError, ValueError):
        soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
        if soft != resource.RLIM_INFINITY:
            _set_data_limit(0, soft + RESERVE)


def is_exhausted(error: BaseException | None) -> bool:
    """Return whether a lack of memory is behind the exception, as itself, its cause, or its context."""
    for _ in range(CHAIN_LIMIT):
        if error is None:
            return False
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return True
        error = error.__cause__ or error.__context__
    return False


def check_cap(pool: str, cap: int) -> None:
    """Check that an idle worker leaves room under the cap.

    Raises:
        Failure: it does not (SettingsError); the message has the figures.
    """
    idle = held([os.getpid()])
    if cap < idle * IDLE_SHARE:
        least = -(-int(idle * IDLE_SHARE) // MIB)
        raise Failure(
            "SettingsError",
            f"memory_cap of pool {pool!r} is {cap / MIB:.0f} MiB, and an idle worker takes {idle / MIB:.0f} MiB: "
            f"give at least {least} MiB ({IDLE_SHARE} times that)",
        )


def _set_data_limit(pid: int, limit: int) -> None:
    _, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.prlimit(pid, resource.RLIMIT_DATA, (limit, hard))


def _stack_size() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_STACK)
    return 8 * MIB if soft == resource.RLIM_INFINITY else soft + 64 * 1024
