"""Which connections have a place, so that no number of them locks the operator out. Pure; the service's loop.

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


class Guest(Protocol):
    """What a connection is asked here."""

    is_on_reserve: bool  # its descriptor is one of those kept for operators

    @property
    def is_busy(self) -> bool: ...

    @property
    def active_at(self) -> float: ...


G = TypeVar("G", bound=Guest)


@dataclass
class ConnectionPlaces(Generic[G]):
    """Who is connected, and as what."""

    max_clients: int
    clients: set[G] = field(default_factory=set)
    operators: set[G] = field(default_factory=set)
    strangers: set[G] = field(default_factory=set)

    def arrive(self, guest: G) -> G | None:
        """Take a stranger; gives another one that must go for it."""
        self.strangers.add(guest)
        return _quietest(self.strangers, but=guest) if len(self.strangers) > STRANGERS else None

    def admit(self, guest: G, role: str) -> G | None:
        """Give a stranger its place; gives another operator that must go for it.

        Raises:
            TooManyClients: every client's place is taken.
            ResourceExhausted: descriptors are short, and the last are for operators.
        """
        if role == Role.OPERATOR:
            self.strangers.discard(guest)
            self.operators.add(guest)
            return _quietest(self.operators, but=guest) if len(self.operators) > OPERATORS else None
        if len(self.clients) >= self.max_clients:
            raise TooManyClients(clients=len(self.clients), limit=self.max_clients)
        if guest.is_on_reserve:
            raise short_of_descriptors()
        self.strangers.discard(guest)
        self.clients.add(guest)
        return None

    def leave(self, guest: G) -> None:
        """Free its place."""
        for group in (self.clients, self.operators, self.strangers):
            group.discard(guest)

    def in_the_way(self, now: float) -> list[G]:
        """Give who must go when not even the reserved descriptors are enough: strangers that are slow to say hello.

        Where there are no strangers it is an operator: each other that comes would be turned away.
        """
        slow = [guest for guest in self.strangers if now - guest.active_at > CROWDED_PATIENCE]
        quietest = None if self.strangers else _quietest(self.operators, but=None)
        return slow if quietest is None else [quietest]

    @property
    def everybody(self) -> tuple[G, ...]:
        return (*self.clients, *self.operators, *self.strangers)


def short_of_descriptors() -> ResourceExhausted:
    """What a client hears while the service can open no more descriptors."""
    return ResourceExhausted(
        "descriptors",
        "another client of this supervisor",
        remedy="Close other clients, raise its limit (`ulimit -n`, LimitNOFILE=) and start it again, or try later.",
    )


def _quietest(guests: set[G], *, but: G | None) -> G | None:
    return min((g for g in guests if g is not but), key=lambda g: (g.is_busy, g.active_at), default=None)
