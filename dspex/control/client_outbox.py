"""What a client has to write: frames in their order, and which requests have been written whole.

Guarded by the connection's lock; each `send` is non-blocking.
"""

from __future__ import annotations

import socket
from collections import deque

from .client_request import ClientRequest


class ClientOutbox:
    """The frames that wait for one socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.broken = ""  # why nothing is written any more
        self._sock = sock
        self._frames: deque[tuple[memoryview, ClientRequest | None]] = deque()
        self._is_torn = False  # set around a write: found set, its writer was interrupted (C5)

    def __bool__(self) -> bool:
        return bool(self._frames)

    @property
    def unwritten(self) -> int:
        """The bytes that wait."""
        return sum(len(frame) for frame, _ in tuple(self._frames))

    def append(self, frame: bytes, request: ClientRequest | None = None) -> None:
        """Add a frame, which makes `request` whole."""
        self._frames.append((memoryview(frame), request))

    def flush(self) -> bool:
        """Write what fits; return whether everything is written."""
        if self._is_torn:
            self.broken = self.broken or "a writer was interrupted in the middle of a frame"
            return False
        while self._frames and not self.broken:
            self._is_torn = True
            frame, request = self._frames[0]
            try:
                sent = self._sock.send(frame)
            except BlockingIOError:
                self._is_torn = False
                return False
            except OSError as error:
                self._is_torn = False
                self.broken = f"the service is gone ({error.strerror or error})"
                return False
            if sent == len(frame):
                self._frames.popleft()
                if request is not None:
                    request.is_sent = True
            else:
                self._frames[0] = (frame[sent:], request)
            self._is_torn = False
        return not self.broken

    def clear(self) -> None:
        """Drop what waits."""
        self._frames.clear()
