"""A response whose body is still coming, whoever reads it: a thread or a task."""

from __future__ import annotations

import time
from typing import Generic, TypeVar

from .connection import HttpConnection
from .http_message import Head

C = TypeVar("C", bound=HttpConnection)


class HttpStream(Generic[C]):
    """A response whose body is still coming; iterate it or close it. `head` is there already.

    Each wait for more lasts `wait` seconds at most, and none goes on after `until` (on `time.monotonic()`'s clock).
    """

    def __init__(self, connection: C, wait: float, until: float) -> None:
        assert connection.parser.head is not None
        self.head: Head = connection.parser.head
        self._connection: C | None = connection
        self._wait = wait
        self._until = until

    def _deadline(self) -> float:
        return min(self._until, time.monotonic() + self._wait)

    def _release(self) -> C | None:
        """Return the connection, once."""
        connection, self._connection = self._connection, None
        return connection
