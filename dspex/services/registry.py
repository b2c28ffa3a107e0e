"""What the host lends to workers while a call runs: tools and rewards, by an id that the call carries. Any thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """Things by id, each for as long as somebody lends it; calls that lend the same at once share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lent: dict[str, tuple[int, T]] = {}

    @contextmanager
    def lent(self, id: str, thing: T) -> Iterator[None]:
        """Lend `thing` for the time of the block. What a call that was abandoned asks for later is not found."""
        with self._lock:
            count, first = self._lent.get(id, (0, thing))
            self._lent[id] = count + 1, first
        try:
            yield
        finally:
            with self._lock:
                count, first = self._lent[id]
                if count == 1:
                    del self._lent[id]
                else:
                    self._lent[id] = count - 1, first

    def get(self, id: str) -> T | None:
        """What is lent under this id."""
        found = self._lent.get(id)
        return None if found is None else found[1]
