"""Open file descriptors above the numbers of the standard streams.

A host that has closed its stdin, stdout or stderr (a daemon) gets those numbers for whatever is opened next, and other
code goes on writing to them and handing them to its children. What DSPex opens must not be hit by that, nor be lost
where a child's standard streams are put in place. Any thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Generator

LAST_STREAM = 2  # stderr


@contextlib.contextmanager
def above_streams() -> Generator[None]:
    """Open descriptors in the block above the standard streams' numbers, whether or not these are open."""
    held: list[int] = []
    try:
        while not held or held[-1] <= LAST_STREAM:
            held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        os.close(held.pop())
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)


def raised(descriptor: int) -> int:
    """Return the descriptor, or a duplicate (closed on exec) if its number is a standard stream's.

    If no other number is free, it stays as it is.
    """
    if descriptor > LAST_STREAM:
        return descriptor
    try:
        above = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, LAST_STREAM + 1)
    except OSError:
        return descriptor
    os.close(descriptor)
    return above
