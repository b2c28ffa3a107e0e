"""`Trace`: the steps of a program or a pipeline, and how they are saved for a viewer of traces."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .trace_step import TraceStep

_SHOWN = 10_000  # characters of one value


class Trace(tuple[TraceStep, ...]):
    """Steps in the order in which they ended; a tuple of `TraceStep`."""

    __slots__ = ()

    def save(self, path: str | os.PathLike[str], *, values: bool = False) -> None:
        """Write the steps as Chrome's trace events, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

        Times are in microseconds from the first step's begin. `values=True` writes inputs and outputs too, as texts.

        Raises:
            OSError: the file cannot be written.
        """
        events = [{"ph": "M", "pid": 1, "name": "process_name", "args": {"name": "dspex"}}]
        text = json.dumps({"traceEvents": events + _events(self, values), "displayTimeUnit": "ms"}, allow_nan=False)
        Path(path).write_text(text, encoding="utf-8")


NO_TRACE = Trace()


def _events(steps: Sequence[TraceStep], values: bool) -> list[dict[str, Any]]:
    """Return a complete event for each step, each on a row where it stands inside or beside the others."""
    placed, rows = [], list[list[float]]()  # of each row: when what is still open there ends, the outermost first
    timed = sorted(_timed(steps), key=lambda each: (each[0], -each[1]))
    first = timed[0][0] if timed else 0.0
    for begin, seconds, step in timed:
        row = _row_for(begin, begin + seconds, rows)
        placed.append(
            {
                "ph": "X",
                "pid": 1,
                "tid": row,
                "name": step.predictor,
                "cat": "dspex",
                "ts": round((begin - first) * 1e6, 3),
                "dur": round(seconds * 1e6, 3),
                "args": _facts(step, values),
            }
        )
    return placed


def _row_for(begin: float, end: float, rows: list[list[float]]) -> int:
    """Return the number, from 1, of a row that has room; it is made if there is none."""
    for number, open_ends in enumerate(rows, 1):
        while open_ends and open_ends[-1] <= begin:
            open_ends.pop()
        if not open_ends or end <= open_ends[-1]:
            open_ends.append(end)
            return number
    rows.append([end])
    return len(rows)


def _timed(steps: Sequence[TraceStep]) -> list[tuple[float, float, TraceStep]]:
    """Return begin, seconds and step; one whose begin is not known follows the one before it."""
    timed, last = [], 0.0
    for step in steps:
        begin = step.began or last
        timed.append((begin, max(step.seconds, 0.0), step))
        last = begin + max(step.seconds, 0.0)
    return timed


def _facts(step: TraceStep, values: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {"cached": step.cached, "finish_reason": step.finish_reason}
    for model, used in step.usage.items():
        facts[f"tokens of {model}"] = {
            name: count for name, count in used.items() if isinstance(count, int) and name.endswith("_tokens")
        }
    if step.error:
        facts["error"] = step.error if values else step.error.partition(":")[0]
    if values:
        facts["inputs"] = {name: str(value)[:_SHOWN] for name, value in step.inputs.items()}
        facts["outputs"] = {name: str(value)[:_SHOWN] for name, value in step.outputs.items()}
    return facts
