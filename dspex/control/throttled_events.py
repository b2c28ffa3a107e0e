"""Throttle events of the control service: at most one every ten seconds for each reason. On its loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..events import Name

EVERY = 10.0  # seconds between two events of one kind and reason


class ThrottledEvents:
    """Emits events; those that come too soon after one of their kind are counted in the next."""

    def __init__(self, emit: Callable[..., None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._emit = emit
        self._clock = clock
        self._next: dict[tuple[Name, str], float] = {}
        self._held: dict[tuple[Name, str], int] = {}

    def emit(self, name: Name, reason: str, **facts: Any) -> None:
        """Emit the event, or count it."""
        kind, now = (name, reason), self._clock()
        if now < self._next.get(kind, 0.0):
            self._held[kind] = self._held.get(kind, 0) + 1
            return
        self._next[kind] = now + EVERY
        self._emit(name, reason=reason, times=1 + self._held.pop(kind, 0), **facts)
