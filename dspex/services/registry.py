"""Register tools and metrics by id for the time of a call, so that its worker may ask for them. Any thread."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """Things by id, each for as long as a call that registered it runs; calls may share an id."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, tuple[int, T]] = {}  # id -> how many calls registered it, and the first one's thing

    @contextmanager
    def registered(self, id: str, thing: T) -> Generator[None]:
        """Register `thing` for the time of the block; what an abandoned call asks for later is not found."""
        with self._lock:
            count, first = self._entries.get(id, (0, thing))
            self._entries[id] = count + 1, first
        try:
            yield
        finally:
            self._drop(id)

    def get(self, id: str) -> T | None:
        """Return what is registered under this id."""
        found = self._entries.get(id)
        return None if found is None else found[1]

    def _drop(self, id: str) -> None:
        with self._lock:
            count, first = self._entries[id]
            if count == 1:
                del self._entries[id]
            else:
                self._entries[id] = count - 1, first
