"""Line: calls that stand and wait, the oldest first. Pure.

A call may leave from anywhere (its caller gave up) and may come back to its old place (its worker died before it
could begin), so a line is a heap of places beside a dict: leaving is O(1), and the heap skips who left.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush

from .records import Ticket

SPARSE = 64  # a heap this much longer than twice its line is built anew


class Line:
    """Tickets in the order of their places."""

    __slots__ = ("_heap", "tickets")

    def __init__(self) -> None:
        self.tickets: dict[int, Ticket] = {}  # by place; hot paths ask `if line.tickets` whether anybody stands here
        self._heap: list[int] = []

    def push(self, ticket: Ticket) -> None:
        """Let the ticket stand at its place."""
        self.tickets[ticket.place] = ticket
        heappush(self._heap, ticket.place)

    def discard(self, ticket: Ticket) -> None:
        """Let the ticket go, wherever it stands."""
        self.tickets.pop(ticket.place, None)
        if len(self._heap) > 2 * len(self.tickets) + SPARSE:
            self._heap = sorted(self.tickets)

    def clear(self) -> None:
        """Let nobody stand here."""
        self.tickets.clear()
        self._heap.clear()

    def first(self) -> Ticket | None:
        """Give the oldest ticket, which stays; None if nobody stands here."""
        if not self.tickets:
            return None
        while (ticket := self.tickets.get(self._heap[0])) is None:
            heappop(self._heap)
        return ticket

    def __len__(self) -> int:
        return len(self.tickets)

    def __contains__(self, ticket: Ticket) -> bool:
        return self.tickets.get(ticket.place) is ticket

    def __iter__(self) -> Iterator[Ticket]:
        """Give a copy of the line, the oldest first."""
        return iter([self.tickets[place] for place in sorted(self.tickets)])

    def __repr__(self) -> str:
        return f"<{len(self)} in line>"
