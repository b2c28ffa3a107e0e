"""What a run of the research assistant looks like on a terminal, or in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from dspex import Result, StepRecord


class Display:
    """Prints lines with the time since it was made, and the optimizer's progress as a bar."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._began = time.monotonic()
        self._last = ""

    def say(self, text: str) -> None:
        self._clear()
        print(f"[{time.monotonic() - self._began:5.1f} s] {text}", flush=True)

    def progress(self, label: str, report: Mapping[str, Any]) -> None:
        """One report of the optimizer."""
        trial, trials = report.get("trial") or 0, report.get("trials")
        stage, best = report.get("stage", ""), report.get("best")
        filled = round(20 * min(trial / trials, 1.0)) if trials else 0
        bar = "#" * filled + "." * (20 - filled)
        score = f", best so far {best:.0f} %" if best is not None else ""
        count = f"trial {trial} of {trials}" if trials else f"{report.get('examples', 0)} examples run"
        self._bar(f"    {label} |{bar}| {stage}: {count}{score}")

    def _bar(self, line: str) -> None:
        if line == self._last:
            return
        self._last = line
        if self._is_terminal:
            print(f"\r\x1b[K{line}", end="", flush=True)
        else:
            print(line, flush=True)

    def _clear(self) -> None:
        if self._is_terminal and self._last:
            print("\r\x1b[K", end="")
        self._last = ""


def show_steps(result: Result) -> None:
    """Say of each step, and of the steps inside it, where it ran and how long it took."""
    print("\nWhat ran where:")
    for record in result.steps:
        _show_step(record, "  ")


def where(record: StepRecord) -> str:
    """Where a step ran, and where its program was optimized if it was."""
    if record.children:
        return " + ".join(dict.fromkeys(map(where, record.children)))
    made = record.optimized
    if made is None:
        return record.route
    when = "before this run" if made.reused else f"in {made.seconds:.1f} s"
    return f"ran {record.route}; optimized by {made.optimizer} in {made.worker}, {when}"


def _show_step(record: StepRecord, indent: str) -> None:
    facts = [where(record)]
    if record.generation is not None:
        facts.append(f"generation {record.generation}")
    if record.attempts > 1:
        facts.append(f"{record.attempts} attempts: {record.reason}")
    print(f"{indent}{record.name:<20} {record.seconds:6.2f} s   {', '.join(facts)}")
    for child in record.children:
        _show_step(child, f"{indent}  ")
