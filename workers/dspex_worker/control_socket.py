"""A fork server's socket to its supervisor: each message is one packet, and may carry descriptors."""

from __future__ import annotations

import os
import socket
from array import array
from typing import Any

from .wire import decode, encode

CONTROL_SIZE = 64 * 1024  # bytes of one message
DESCRIPTORS_MOST = 16  # that come with one message


class ControlSocket:
    """The fork server's end. Messages are [kind, facts]."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._socket = socket.socket(fileno=descriptor)

    def receive(self) -> tuple[list[Any], list[int]]:
        """Wait for a command, and return it with its descriptors.

        Raises:
            ConnectionError: the supervisor is gone.
        """
        data, ancillary, _, _ = self._socket.recvmsg(
            CONTROL_SIZE, socket.CMSG_SPACE(DESCRIPTORS_MOST * array("i").itemsize)
        )
        descriptors = _descriptors_in(ancillary)
        if not data:
            raise ConnectionResetError
        return decode(data), descriptors

    def send(self, kind: str, facts: dict[str, Any], descriptor: int | None = None) -> None:
        """Send a message, with a descriptor if one is given.

        Raises:
            OSError: the supervisor is gone.
        """
        ancillary = []
        if descriptor is not None:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [descriptor]))]
        self._socket.sendmsg([encode([kind, facts])], ancillary)


def _descriptors_in(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    for descriptor in found:
        os.set_inheritable(descriptor, False)
    return list(found)
