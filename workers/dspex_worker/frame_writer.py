"""Write messages to the supervisor: whole frames, one at a time, from any thread."""

from __future__ import annotations

import os
import threading
from collections import deque
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
        self._beside: deque[bytes] = deque()  # frames that wait for whoever writes now

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
        with self._lock:
            self._put(frame)
        if self._beside:
            self._put_beside()

    def write_beside(self, frame: bytes) -> None:
        """Write a frame once nobody else writes: it waits for no lock, so a finalizer inside `write` may call it."""
        self._beside.append(frame)
        self._put_beside()

    def after_fork(self) -> None:
        """In a forked child: write nowhere, or a reply could go into a file of the child's own."""
        self._descriptor = -1
        self._lock = threading.Lock()  # the other may be held by a thread that is not here
        self._beside.clear()

    def _put_beside(self) -> None:
        """Write the frames that wait; if somebody writes now, that one does it afterwards."""
        while self._beside and self._lock.acquire(blocking=False):
            try:
                while self._beside:
                    self._put(self._beside.popleft())
            finally:
                self._lock.release()

    def _put(self, frame: bytes) -> None:
        view = memoryview(frame)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except OSError:
                leave(0)  # the supervisor is gone: nobody is left to answer
