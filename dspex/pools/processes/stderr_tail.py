"""Drain a worker's stderr into a bounded ring, for errors. Engine's thread; text is redacted."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable

RING_SIZE = 64 * 1024  # bytes kept of each worker's stderr
TAIL_SIZE = 4 * 1024  # bytes of it that an error carries
READ_SIZE = 64 * 1024
MOST_READS = 16  # per wake-up: a worker that floods must not keep the engine from the others

_SECRETS = re.compile(r"(?i)(bearer\s+|api[-_]?key['\"]?\s*[:=]\s*['\"]?|sk-)[A-Za-z0-9._~+/-]{8,}")


class StderrTail:
    """The end of a stream of text, in a bounded number of bytes."""

    def __init__(self) -> None:
        self._parts: deque[bytes] = deque()
        self._size = 0
        self.total = 0

    def read_from(self, descriptor: int, see: Callable[[bytes], None] | None = None) -> bool:
        """Take what is there, and let `see` see it; False at the stream's end. `descriptor` does not block."""
        for _ in range(MOST_READS):
            try:
                data = os.read(descriptor, READ_SIZE)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            self.add(data)
            if see is not None:
                see(data)
        return True

    def add(self, data: bytes) -> None:
        self.total += len(data)
        self._parts.append(data[-RING_SIZE:])
        self._size += len(self._parts[-1])
        while self._size - len(self._parts[0]) >= RING_SIZE:
            self._size -= len(self._parts.popleft())

    def text(self, size: int = TAIL_SIZE) -> str:
        """Return the last `size` bytes as text, without anything that looks like a key."""
        tail = b"".join(self._parts)[-size:].decode(errors="replace")
        return _SECRETS.sub(lambda match: f"{match.group(1)}[redacted]", tail)
