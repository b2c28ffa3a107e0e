"""Write messages to the supervisor: whole frames, one at a time, from any thread."""

from __future__ import annotations

import os
import threading
from typing import Any

from .exits import leave
from .wire import FRAME_LIMIT, messages
from .wire.messages import Kind


class FrameWriter:
    """The worker's end of the pipe to its supervisor. Ends the process when nobody reads any more."""

    def __init__(self, descriptor: int, limit: int = FRAME_LIMIT) -> None:
        self.limit = limit  # bytes of one frame
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def send(self, kind: Kind, *fields: Any) -> None:
        """Write one message.

        Raises:
            Unencodable, OverLimit: it cannot be sent; nothing was written.
        """
        self.write(self.frame(kind, *fields))

    def frame(self, kind: Kind, *fields: Any) -> bytes:
        """Return the frame of a message, for `write`.

        Raises:
            Unencodable, OverLimit: it cannot be sent.
        """
        return messages.write(kind, *fields, limit=self.limit, root="result")

    def write(self, frame: bytes) -> None:
        """Write all of a frame; blocks while the pipe is full."""
        view = memoryview(frame)
        with self._lock:
            while view:
                try:
                    view = view[os.write(self._descriptor, view) :]
                except OSError:
                    leave(0)  # the supervisor is gone: nobody is left to answer

    def after_fork(self) -> None:
        """In a forked child: write nowhere, or a reply could go into a file of the child's own."""
        self._descriptor = -1
        self._lock = threading.Lock()  # the other may be held by a thread that is not here
