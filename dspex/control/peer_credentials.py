"""The process at the other end of a unix socket, as the kernel recorded it at connect or listen."""

from __future__ import annotations

import socket
import struct

_CREDENTIALS = struct.Struct("3i")


def credentials(sock: socket.socket) -> tuple[int, int]:
    """Return (pid, uid) of the process at the other end, the pid as numbered here: 0 where it cannot be seen from here.

    For a client it is the process that listens; for a service the one that connected.
    """
    pid, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(pid), int(uid)
