"""Count a supervisor's events for its metrics. On the events thread; read by any."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Final

from ..events import Event, Name

LABELS_MOST: Final = 100  # that one count tells apart
OTHER: Final = "other"


class EventCounts:
    """How often each event happened, and those that metrics tell apart by more than their name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: Counter[tuple[str, ...]] = Counter()
        self._restarts: Counter[tuple[str, ...]] = Counter()
        self._retries: Counter[tuple[str, ...]] = Counter()
        self._jobs: Counter[tuple[str, ...]] = Counter()

    def take(self, event: Event) -> None:
        """Count one event."""
        name, facts = event.name, event.facts
        with self._lock:
            self._events[(name.value,)] += 1
            if name is Name.WORKER_DIED:
                _count(self._restarts, facts.get("pool"), facts.get("cause"))
            elif name is Name.WORKER_RECYCLING:
                _count(self._restarts, facts.get("pool"), "recycled")
            elif name is Name.LM_RETRIED:
                _count(self._retries, facts.get("model"))
            elif name is Name.JOB_ENDED:
                _count(self._jobs, facts.get("reason"))

    def events(self) -> dict[tuple[str, ...], int]:
        """Return the counts by the event's name."""
        return self._copy(self._events)

    def restarts(self) -> dict[tuple[str, ...], int]:
        """Return the workers that were replaced, by pool and cause: how they died, or "recycled"."""
        return self._copy(self._restarts)

    def retries(self) -> dict[tuple[str, ...], int]:
        """Return the LM requests that were sent once more, by model."""
        return self._copy(self._retries)

    def jobs(self) -> dict[tuple[str, ...], int]:
        """Return the optimizations that have ended, by how."""
        return self._copy(self._jobs)

    def _copy(self, counts: Counter[tuple[str, ...]]) -> dict[tuple[str, ...], int]:
        with self._lock:
            return dict(counts)


def _count(counts: Counter[tuple[str, ...]], *labels: object) -> None:
    key = tuple(str(label) for label in labels)
    counts[key if key in counts or len(counts) < LABELS_MOST else (*key[:-1], OTHER)] += 1
