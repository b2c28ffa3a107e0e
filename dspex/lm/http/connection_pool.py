"""`ConnectionPool`: idle connections by address, for threads or for one event loop.

Append and pop of a deque are atomic: no lock, hence nothing that a fork or a finalizer could find held.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from .endpoint import Endpoint
from .http_message import ResponseParser, kept_for

CONNECT_TIMEOUT_S = 10.0
IDLE_LIMIT_S = 55.0  # under the 60 s after which common load balancers close
IDLE_MOST = 64
ADDRESSES_MOST = 256
OnResend = Callable[[], object]  # called when a kept connection was closed and its request is sent once more


class KeptConnection(Protocol):
    """A connection that a pool keeps; `idle_until` is a time.monotonic() point."""

    idle_until: float

    @property
    def parser(self) -> ResponseParser: ...
    @property
    def is_reusable(self) -> bool: ...
    def is_fresh(self) -> bool: ...
    def close(self) -> None: ...


C = TypeVar("C", bound=KeptConnection)


class ConnectionPool(Generic[C]):
    """Keeps at most `most` idle connections for each address."""

    def __init__(self, most: int = IDLE_MOST) -> None:
        self._idle: dict[tuple[object, ...], deque[C]] = {}
        self._most = most

    def take(self, target: Endpoint) -> C | None:
        """Return a connection that may be used, the last one kept; None when there is none."""
        connections = self._idle.get(target.pool)
        while connections:
            try:
                connection = connections.pop()
            except IndexError:  # another thread was faster
                return None
            if connection.is_fresh():
                return connection
            connection.close()
        return None

    def put(self, target: Endpoint, connection: C) -> None:
        """Keep a connection whose response is whole, or close it."""
        head = connection.parser.head
        idle_s = kept_for(head, IDLE_LIMIT_S) if head is not None and connection.is_reusable else 0.0
        connections = self._idle.get(target.pool)
        if connections is None:
            connections = self._idle.setdefault(target.pool, deque())
            self._forget_addresses()
        if not idle_s or len(connections) >= self._most:
            connection.close()
            return
        connection.idle_until = time.monotonic() + idle_s
        connections.append(connection)

    def _forget_addresses(self) -> None:
        """Close what is kept for the oldest address where there are too many."""
        while len(self._idle) > ADDRESSES_MOST:
            with contextlib.suppress(StopIteration, RuntimeError, IndexError):  # another thread was faster
                connections = self._idle.pop(next(iter(self._idle)), None)
                while connections:
                    connections.popleft().close()

    def count(self, target: Endpoint) -> int:
        """Return how many connections to this address are kept."""
        return len(self._idle.get(target.pool, ()))

    def close(self) -> None:
        """Close all."""
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            _close(connections)

    def close_idle(self, address: tuple[str, int]) -> None:
        """Close those to one address."""
        for key in [key for key in tuple(self._idle) if key[0] == address]:
            _close(self._idle.pop(key, deque()))


def _close(connections: deque[C]) -> None:
    with contextlib.suppress(IndexError):  # one was taken meanwhile
        while connections:
            connections.pop().close()


def ignore_resend() -> None:
    """Do nothing when a request is sent again."""
