"""Limit connections, so that no number of them locks the operator out. Pure; on the service's loop.

A connection is a stranger until it has said hello, then a client, of which there are `max_clients`, or an operator.
When operators or strangers are more than their places, the one that has been quiet longest makes room: whoever comes to
look or to stop is always let in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from ..errors import ResourceExhausted, TooManyClients
from .protocol import Role

MAX_CLIENTS = 64
OPERATORS = 16
STRANGERS = 64
CROWDED_PATIENCE = 0.25  # seconds that a stranger has for its hello when descriptors are short


class PlacedConnection(Protocol):
    """A connection as the places see it."""

    is_on_reserve: bool  # its descriptor is one of those kept for operators

    @property
    def is_busy(self) -> bool: ...

    @property
    def active_at(self) -> float: ...


ConnectionT = TypeVar("ConnectionT", bound=PlacedConnection)


@dataclass
class ConnectionPlaces(Generic[ConnectionT]):
    """The connections and their roles."""

    max_clients: int
    clients: set[ConnectionT] = field(default_factory=set)
    operators: set[ConnectionT] = field(default_factory=set)
    strangers: set[ConnectionT] = field(default_factory=set)

    def arrive(self, connection: ConnectionT) -> ConnectionT | None:
        """Take a stranger; return another one that must go for it, if any."""
        self.strangers.add(connection)
        return _quietest(self.strangers, but=connection) if len(self.strangers) > STRANGERS else None

    def admit(self, connection: ConnectionT, role: str) -> ConnectionT | None:
        """Return a stranger its place; return another operator that must go for it.

        Raises:
            TooManyClients: every client's place is taken.
            ResourceExhausted: descriptors are short, and the last are for operators.
        """
        if role == Role.OPERATOR:
            self.strangers.discard(connection)
            self.operators.add(connection)
            return _quietest(self.operators, but=connection) if len(self.operators) > OPERATORS else None
        if len(self.clients) >= self.max_clients:
            raise TooManyClients(clients=len(self.clients), limit=self.max_clients)
        if connection.is_on_reserve:
            raise short_of_descriptors()
        self.strangers.discard(connection)
        self.clients.add(connection)
        return None

    def leave(self, connection: ConnectionT) -> None:
        """Free its place."""
        for group in (self.clients, self.operators, self.strangers):
            group.discard(connection)

    def in_the_way(self, now: float) -> list[ConnectionT]:
        """Return which connections to close when not even the reserve is enough: strangers slow to send their HELLO.

        Where there are no strangers it is an operator: each other that comes would be turned away.
        """
        slow = [connection for connection in self.strangers if now - connection.active_at > CROWDED_PATIENCE]
        quietest = None if self.strangers else _quietest(self.operators, but=None)
        return slow if quietest is None else [quietest]

    @property
    def everybody(self) -> tuple[ConnectionT, ...]:
        return (*self.clients, *self.operators, *self.strangers)


def short_of_descriptors() -> ResourceExhausted:
    """Return the error for a client while the service can open no more descriptors."""
    return ResourceExhausted(
        "descriptors",
        "another client of this supervisor",
        remedy="Close other clients, raise its limit (`ulimit -n`, LimitNOFILE=) and start it again, or try later.",
    )


def _quietest(connections: set[ConnectionT], *, but: ConnectionT | None) -> ConnectionT | None:
    return min((g for g in connections if g is not but), key=lambda g: (g.is_busy, g.active_at), default=None)
