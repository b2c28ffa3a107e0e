"""Keep the last minutes of each pool: calls a second, how long they take, what waits. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from ..pools.stats import PoolStats

Row = dict[str, Any]
POINTS = 180  # one each look
LINES = ("rate", "queued", "running", "mean_s", "age_p50_s", "age_p99_s")  # ages are of the calls under way


class PoolHistory:
    """One pool's."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[float]] = {name: deque(maxlen=POINTS) for name in LINES}
        self._at: float | None = None
        self._ended = 0
        self._busy = 0.0

    def add(self, stats: PoolStats, ages: Sequence[float], now: float) -> None:
        """Take a look at `now` seconds of a steady clock; `ages` are those of its calls, in seconds."""
        counts = stats["counts"]
        ended = sum(counts.get(name, 0) for name in ("answered", "failed", "expired", "cancelled"))
        passed = 0.0 if self._at is None else now - self._at
        rate = max(0, ended - self._ended) / passed if passed > 0 else 0.0
        load = float(stats["queued"] + stats["in_flight"])
        self._at, self._ended = now, ended
        self._busy = load if not self._busy else 0.8 * self._busy + 0.2 * load  # looks are few, calls are many
        self._append(
            rate=rate,
            queued=stats["queued"],
            running=stats["in_flight"],
            mean_s=self._busy / rate if rate else 0.0,  # Little's law
            age_p50_s=_quantile(ages, 0.5),
            age_p99_s=_quantile(ages, 0.99),
        )

    def shown(self) -> Mapping[str, list[float]]:
        """Return the lines, the newest last."""
        return {name: [round(value, 4) for value in line] for name, line in self._lines.items()}

    def _append(self, **values: float) -> None:
        for name, value in values.items():
            self._lines[name].append(value)


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
