"""`ConnectionPool`: idle connections by endpoint, and the places of those that are open. For threads, or for one loop.

Append and pop of a deque are atomic: no lock, hence nothing that a fork or a finalizer could find held.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from .endpoint import Endpoint
from .endpoint_places import Place, Places, Waiter, usual_most
from .http_message import ResponseParser, kept_for

CONNECT_TIMEOUT_S = 10.0
PLACE_WAIT_MOST_S = 600.0  # where no deadline ends the wait for a connection
LIMIT_PAUSE_S = 0.05  # before a connection is tried again for which the process had no descriptor
IDLE_LIMIT_S = 55.0  # under the 60 s after which common load balancers close
IDLE_MOST = 64
ADDRESSES_MOST = 256
OnConnect = Callable[[Endpoint], object]  # called before a new connection is made
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


class EndpointConnections(Generic[C]):
    """The connections to one endpoint: those that are idle, and the places of all."""

    __slots__ = ("idle", "places", "waiters")

    def __init__(self, most: int) -> None:
        self.idle: deque[C] = deque()
        self.places = Places(most)
        self.waiters = self.places.waiters

    def fresh(self) -> C | None:
        """Return an idle connection that may be used, the last one kept; None when there is none."""
        while self.idle:
            try:
                connection = self.idle.pop()
            except IndexError:  # another thread was faster
                return None
            if connection.is_fresh():
                return connection
            connection.close()
        return None

    def offered(self, waiter: Waiter, *, may_be_kept: bool) -> tuple[C | None, Place | None]:
        """Return what there is for a waiter whose turn it is; else it waits on, before those that came later."""
        waiters = self.places.waiters
        if waiter.is_woken:
            waiter.is_woken = False
            waiters.appendleft(waiter)
        elif waiters[0] is not waiter:
            return None, None
        kept = self.fresh() if may_be_kept else None
        return kept, None if kept is not None else self.place()

    def place(self) -> Place | None:
        """Return a place for a new connection, if need be that of an idle one."""
        found = self.places.take()
        if found is None and self.idle:
            with contextlib.suppress(IndexError):  # another thread was faster
                self.idle.popleft().close()
            found = self.places.take()
        return found


class ConnectionPool(Generic[C]):
    """Keeps at most `most` idle connections for each endpoint."""

    def __init__(self, most: int = IDLE_MOST) -> None:
        self._endpoints: dict[tuple[object, ...], EndpointConnections[C]] = {}
        self._most = most

    def take(self, target: Endpoint) -> C | None:
        """Return an idle connection that may be used; None when there is none, or others wait for it."""
        endpoint = self._endpoints.get(target.pool)
        return None if endpoint is None or endpoint.waiters else endpoint.fresh()

    def endpoint(self, target: Endpoint) -> EndpointConnections[C]:
        """Return the connections to an endpoint."""
        found = self._endpoints.get(target.pool)
        if found is None:
            most = usual_most() if target.max_connections is None else target.max_connections
            found = self._endpoints.setdefault(target.pool, EndpointConnections(most))
            self._forget_endpoints(found)
        return found

    def put(self, target: Endpoint, connection: C) -> None:
        """Keep a connection whose response is whole, or close it."""
        head = connection.parser.head
        idle_s = kept_for(head, IDLE_LIMIT_S) if head is not None and connection.is_reusable else 0.0
        endpoint = self._endpoints.get(target.pool)
        if not idle_s or endpoint is None or len(endpoint.idle) >= self._most:
            connection.close()
            return
        connection.idle_until = time.monotonic() + idle_s
        endpoint.idle.append(connection)
        if endpoint.waiters:
            endpoint.places.wake_next()

    def count(self, target: Endpoint) -> int:
        """Return how many connections to this address are kept."""
        endpoint = self._endpoints.get(target.pool)
        return 0 if endpoint is None else len(endpoint.idle)

    def close(self) -> None:
        """Close all that is idle."""
        for endpoint in tuple(self._endpoints.values()):
            _close(endpoint.idle)

    def wake_all(self) -> None:
        """Wake all that wait for a connection."""
        for endpoint in tuple(self._endpoints.values()):
            endpoint.places.wake_all()

    def close_idle(self, address: tuple[str, int]) -> None:
        """Close those to one address."""
        for key, endpoint in tuple(self._endpoints.items()):
            if key[0] == address:
                _close(endpoint.idle)
                self._forget(key)

    def _forget_endpoints(self, kept: EndpointConnections[C]) -> None:
        """Close what is kept for the oldest endpoints where there are too many."""
        while len(self._endpoints) > ADDRESSES_MOST:
            with contextlib.suppress(StopIteration, RuntimeError):  # another thread was faster
                key = next(iter(self._endpoints))
                endpoint = self._endpoints.get(key)
                if endpoint is kept:
                    return
                if endpoint is not None:
                    _close(endpoint.idle)
                self._endpoints.pop(key, None)

    def _forget(self, key: tuple[object, ...]) -> None:
        """Forget an endpoint of which no connection is open."""
        endpoint = self._endpoints.get(key)
        if endpoint is not None and endpoint.places.is_unused:
            self._endpoints.pop(key, None)


def _close(connections: deque[C]) -> None:
    with contextlib.suppress(IndexError):  # one was taken meanwhile
        while connections:
            connections.pop().close()


def ignore_resend() -> None:
    """Do nothing when a request is sent again."""


def ignore_connect(target: Endpoint) -> None:
    """Do nothing when a connection is made."""
