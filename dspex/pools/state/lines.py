"""Line: calls that stand and wait, the oldest first. Pure.

A call may leave from anywhere (its caller gave up) and may come back to its old place (its worker died before it
could begin), so a line is a heap of places beside a dict: leaving is O(1), and the heap skips who left.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush

from .records import CallRecord

SPARSE = 64  # a heap this much longer than twice its line is built anew


class CallQueue:
    """Tickets in the order of their places."""

    __slots__ = ("_heap", "calls")

    def __init__(self) -> None:
        self.calls: dict[int, CallRecord] = {}  # by place; hot paths ask `if line.calls` whether anybody stands here
        self._heap: list[int] = []

    def push(self, call: CallRecord) -> None:
        """Let the ticket stand at its place."""
        self.calls[call.place] = call
        heappush(self._heap, call.place)

    def discard(self, call: CallRecord) -> None:
        """Let the ticket go, wherever it stands."""
        self.calls.pop(call.place, None)
        if len(self._heap) > 2 * len(self.calls) + SPARSE:
            self._heap = sorted(self.calls)

    def clear(self) -> None:
        """Let nobody stand here."""
        self.calls.clear()
        self._heap.clear()

    def first(self) -> CallRecord | None:
        """Give the oldest ticket, which stays; None if nobody stands here."""
        if not self.calls:
            return None
        while (call := self.calls.get(self._heap[0])) is None:
            heappop(self._heap)
        return call

    def __len__(self) -> int:
        return len(self.calls)

    def __contains__(self, call: CallRecord) -> bool:
        return self.calls.get(call.place) is call

    def __iter__(self) -> Iterator[CallRecord]:
        """Give a copy of the line, the oldest first."""
        return iter([self.calls[place] for place in sorted(self.calls)])

    def __repr__(self) -> str:
        return f"<{len(self)} in line>"
