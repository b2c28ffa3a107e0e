"""Keep what a page shows of many events: the last, those that matter, why workers ended, a count. Any thread."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from typing import Any

from ..events import Name

Row = dict[str, Any]
LAST_MOST = 60
TEXT_MOST = 400  # characters of one fact
FACTS_MOST = 12  # of one event
CAUSES_MOST = 50

_ENDS = frozenset({Name.WORKER_DIED.value, Name.WORKER_STOPPED.value})  # each worker ends with one of them


class SeenEvents:
    """What was seen of one source's events."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: deque[Row] = deque(maxlen=LAST_MOST)
        self._serious: deque[Row] = deque(maxlen=LAST_MOST)  # a flood of others does not wash them away
        self._ends: deque[Row] = deque(maxlen=LAST_MOST)
        self._causes: Counter[tuple[str, str, str]] = Counter()
        self._came = 0

    def take(self, row: Row) -> None:
        """Keep an event as the control service tells it, or count those that it dropped."""
        if "dropped" in row:
            with self._lock:
                self._came += int(row["dropped"])
            return
        kept = _bounded(row)
        with self._lock:
            self._came += 1
            self._last.append(kept)
            if kept["level"] >= logging.WARNING:
                self._serious.append(kept)
            if kept["name"] in _ENDS:
                self._ends.append(kept)
                cause = _cause(kept)
                self._causes[cause if len(self._causes) < CAUSES_MOST else (*cause[:1], "other", "")] += 1

    def shown(self) -> Row:
        """Return what a page shows."""
        with self._lock:
            return {
                "came": self._came,
                "last": list(self._last),
                "serious": list(self._serious),
                "ends": list(self._ends),
                "causes": [
                    {"pool": pool, "kind": kind, "reason": reason, "times": times}
                    for (pool, kind, reason), times in self._causes.most_common()
                ],
            }


def _bounded(row: Row) -> Row:
    facts = {
        str(name)[:TEXT_MOST]: value if isinstance(value, int | float) else str(value)[:TEXT_MOST]
        for name, value in list(row["facts"].items())[:FACTS_MOST]
        if value not in (None, "")
    }
    return {"time": row["time"], "name": row["name"], "level": row["level"], "facts": facts}


def _cause(row: Row) -> tuple[str, str, str]:
    """Return the pool, what happened, and why."""
    facts = row["facts"]
    why = str(facts.get("reason", ""))
    if why in ("", "died"):  # by itself
        ended = (f"{name.replace('_', ' ')} {facts[name]}" for name in ("signal", "exit_code") if name in facts)
        why = ", ".join([str(facts.get("cause", "")), *ended]).removeprefix(", ")
    return str(facts.get("pool", "")), row["name"].rpartition(".")[2], why
