"""Hold a supervisor's name in the kernel, where nothing that sweeps folders reaches it.

A socket in Linux's abstract namespace exists without a file and goes with its process. Bound, it keeps others from the
name; listening, it tells them whose the name is, as the kernel recorded it. Nothing is ever served on it. Where there
are no such sockets, or another user has taken the address, the files alone hold the name. Any thread.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import socket
from pathlib import Path

from . import peer_credentials

BACKLOG = 128  # looks at the holder; the holder takes them up now and then


class NameIsHeld(Exception):
    """A process of this user holds the name; `pid` is 0 where it cannot be seen from here."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"process {pid} holds the name")
        self.pid = pid


def hold(path: Path) -> socket.socket | None:
    """Hold the name of the socket at `path` until the result is closed; None where that is not possible.

    Raises:
        NameIsHeld: a living process of this user has it.
    """
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        lock.bind(_address(path))
        lock.listen(BACKLOG)
        lock.setblocking(False)
    except OSError as error:
        lock.close()
        if error.errno == errno.EADDRINUSE and (pid := holder(path)) is not None:
            raise NameIsHeld(pid) from None
        return None
    return lock


def holder(path: Path) -> int | None:
    """Return the process of this user that holds the name, 0 if its number cannot be seen; None if there is none."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        probe.connect(_address(path))
        pid, uid = peer_credentials.credentials(probe)
        if uid == os.getuid():
            return pid
    return None


def take_up(lock: socket.socket) -> None:
    """Take up those who looked, so that others can."""
    with contextlib.suppress(OSError):
        while True:
            lock.accept()[0].close()


def _address(path: Path) -> bytes:
    """Return the address that means `path` for this user; another container's folder of that path is another."""
    try:
        view = str(Path("/proc/self/ns/mnt").readlink())
    except OSError:
        view = ""
    named = f"{os.getuid()} {view} ".encode() + os.fsencode(path)
    return b"\0dspex/" + hashlib.sha256(named).hexdigest()[:40].encode()
