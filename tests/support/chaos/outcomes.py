"""The books of a soak: every id that was handed out ends exactly once, and nothing ran more often than it may.

Any thread keeps them. They are made of arrays whose pages are touched at the start, so that keeping books does not
look like a leak of what is being watched.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from pathlib import Path

NEVER_MADE = 0xFF
MAY_REPEAT, HAS_EFFECT, ANSWERED = 1, 2, 4


class Books:
    """What became of each id; `counts` by kind and end."""

    def __init__(self, capacity: int, effects: Path) -> None:
        self.effects = effects
        self.counts: Counter[tuple[str, str]] = Counter()
        self.wrong: list[str] = []
        self.capacity = capacity
        self._ends = bytearray().ljust(capacity, bytes([NEVER_MADE]))  # afterwards: how often the id ended
        self._flags = bytearray().ljust(capacity, b"\xff")  # touched, then:
        self._flags[:] = bytes(capacity)
        self._next = itertools.count()
        self._lock = threading.Lock()

    def open(self) -> int:
        """Give a new id, which must end once.

        Raises:
            StopIteration: the books are full.
        """
        id = next(self._next)
        if id >= self.capacity:
            raise StopIteration
        self._ends[id] = 0
        return id

    def expects_effect(self, id: int, *, may_repeat: bool = False) -> None:
        """The id's token may appear in the effects file: once, or twice if it may run again."""
        self._flags[id] |= HAS_EFFECT | (MAY_REPEAT if may_repeat else 0)

    def close(self, id: int, kind: str, end: str) -> None:
        """The id has ended so."""
        with self._lock:
            self._ends[id] += 1
            self.counts[kind, end] += 1
        if end == "answered":
            self._flags[id] |= ANSWERED

    def found_wrong(self, what: str) -> None:
        """Something that must never be seen was."""
        with self._lock:
            if len(self.wrong) < 100:
                self.wrong.append(what)

    def total(self) -> int:
        return sum(self.counts.values())

    def faults(self) -> list[str]:
        """Compare with what really ran, once all callers have ended; [] if everything adds up."""
        found = list(self.wrong)
        found += [f"id {id} ended {n} times" for id, n in enumerate(self._ends) if n not in (1, NEVER_MADE)][:20]
        runs = self._runs()
        for id in range(self.capacity):
            flags = self._flags[id]
            if not flags & HAS_EFFECT and not runs[id]:
                continue
            most = 2 if flags & MAY_REPEAT else 1 if flags & HAS_EFFECT else 0
            if runs[id] > most:
                found.append(f"id {id} ran {runs[id]} times, at most {most} allowed")
            if flags & ANSWERED and not runs[id]:
                found.append(f"id {id} was answered and never ran")
        return found

    def executions(self) -> int:
        """How many lines the effects file has."""
        return sum(self._runs())

    def _runs(self) -> bytearray:
        runs = bytearray(self.capacity)
        if self.effects.exists():
            with self.effects.open() as lines:
                for line in lines:
                    runs[int(line)] += 1
        return runs
