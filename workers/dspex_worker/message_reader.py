"""Read the supervisor's messages. Only the leader reads; see `LeaderFollower`."""

from __future__ import annotations

import os
import select
from typing import NoReturn

from .exits import EXIT_MEMORY, EXIT_PROTOCOL, end_group, leave, report
from .wire import FrameBuffer, Malformed, messages
from .wire.messages import Message

READ_SIZE = 64 * 1024  # bytes at once; a buffer over malloc's mmap threshold costs 50 us for each read


class MessageReader:
    """The worker's end of the pipe from its supervisor. Ends the process where that ends, or holds no messages."""

    def __init__(self, descriptor: int, buffer: FrameBuffer, worker: str) -> None:
        """`buffer` may hold what was read after the HELLO; `worker` is its name, for stderr."""
        self.readable = select.poll()
        self.readable.register(descriptor, select.POLLIN)
        self._descriptor = descriptor
        self._buffer = buffer
        self._worker = worker

    def read(self) -> list[Message]:
        """Wait for data, and return the messages that are whole; there may be none."""
        try:
            self.readable.poll()  # asleep in read(), a worker that is killed would still take what comes (C8)
            data = os.read(self._descriptor, READ_SIZE)
            if not data:
                end_group()  # the supervisor is gone, or has let go
            return self.parse(data)
        except MemoryError:  # a call took all there was: a worker that cannot read any more is of no use to the others
            os.write(2, b"dspex worker: no memory is left to read with\n")
            leave(EXIT_MEMORY)

    def parse(self, data: bytes) -> list[Message]:
        """Return the messages that are whole once `data` is there too."""
        try:
            return [messages.read(body) for body in self._buffer.feed(data)]
        except Malformed as error:
            self.refuse(error)

    def refuse(self, error: Malformed) -> NoReturn:
        """End the process: what came is no message of the protocol, and nothing after it can be trusted."""
        report(f"dspex worker {self._worker}: {error}\n")
        leave(EXIT_PROTOCOL)
