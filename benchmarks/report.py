"""Tables, medians and what the machine is."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

Row = dict[str, Any]


def table(rows: Sequence[Row]) -> str:
    """Give rows as a Markdown table; the columns are the first row's."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *[[_cell(row.get(column)) for column in columns] for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def percentile(values: Sequence[float], share: float) -> float:
    """Give the value below which `share` of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def spread(values: Sequence[float]) -> float:
    """Give the distance between the extremes as a share of the median: how far to trust a figure."""
    middle = statistics.median(values)
    return (max(values) - min(values)) / middle if middle else 0.0


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def until(is_so: Callable[[], bool], patience: float = 60.0) -> None:
    """Look every millisecond until it is so.

    Raises:
        TimeoutError: it was not in `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"what the benchmark waits for did not come in {patience:g} s")
        time.sleep(0.001)


def machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
    }


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return "" if value is None else str(value)
