"""Score a cell from the facts of its trials: held or failed, with words and figures. Pure.

A cell has held if every one of its trials did, and a trial if none of its facts is bad. Times are medians over trials;
counts are the worst. A time that is None never came within the trial's patience, which is bad; how long one may be
is left to the reader.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Mark(StrEnum):
    """The result of a cell."""

    HELD = "held"
    FAILED = "FAILED"
    LACKS = "n/a"  # the pool has no such feature
    ABSENT = "absent"  # the pool is not installed
    UNMEASURED = "error"  # the measuring failed: nothing is said of the pool


@dataclass(frozen=True, slots=True)
class Cell:
    """One peer in one case."""

    peer: str
    case: str
    mark: Mark
    text: str
    figures: Mapping[str, Any] = field(default_factory=dict)  # medians of times, worst of counts
    spread: float = 0.0  # of the times: the largest distance between extremes, as a share of its median
    trials: Sequence[Mapping[str, Any]] = ()

    def as_wire(self) -> dict[str, Any]:
        return asdict(self)


TIMES = {  # fact: what is said of it, and of its absence
    "told_s": ("told", "never told"),
    "late_s": ("late by", "caller never freed"),
    "stopped_s": ("work stopped", "work goes on"),
    "capacity_s": ("all serve", "workers never back"),
    "cancel_s": ("cancelled", "not cancelled"),
    "exit_s": ("exit", "does not exit"),
    "gone_s": ("all gone", "not gone"),
}
COUNTS = {  # fact: what is said where it is not 0
    "lost": "innocent calls lost",
    "left": "processes left over",
    "ran_anyway": "ran although cancelled or expired",
    "misplaced": "out of order",
}
CLAIMS = {  # fact: what is said where it is not so
    "is_usable": "pool unusable",
    "is_explained": "not told why",
    "is_bounded": "not bounded",
}
NO_ERROR = ("a value", "nothing")  # outcomes of failing calls that are none


def score(peer: str, case: str, trials: Sequence[Mapping[str, Any]]) -> Cell:
    """Return the cell for these trials: what `trial` printed for each."""
    broken = [trial["broken"] for trial in trials if "broken" in trial]
    if broken:
        return Cell(peer, case, Mark.UNMEASURED, str(broken[0]), trials=trials)
    hung = [trial["hung"] for trial in trials if "hung" in trial]
    if hung:
        text = f"the host hung, and was killed after {span(hung[0])}{_share(len(hung), len(trials))}"
        return Cell(peer, case, Mark.FAILED, text, trials=trials)
    every = [trial["facts"] for trial in trials]
    bad = complaints(every)
    figures = _figures(every)
    said = ", ".join([*bad, *_praise(figures)]) or "nothing lost"
    return Cell(peer, case, Mark.FAILED if bad else Mark.HELD, said, figures, _spread(every), trials)


def complaints(every: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what is bad in these trials' facts, and in how many of them if not in all."""
    found: list[str] = []
    for name, text in COUNTS.items():
        counts = [facts[name] for facts in every if facts.get(name)]
        if counts:
            of = f" of {every[0]['innocents']}" if name == "lost" else ""
            found.append(f"{max(counts)}{of} {text}{_share(len(counts), len(every))}")
    if untold := [facts for facts in every if facts.get("error") in NO_ERROR]:
        found.append(f"no error{_share(len(untold), len(every))}")
    for name, (_, text) in TIMES.items():
        if never := [facts for facts in every if name in facts and facts[name] is None]:
            found.append(f"{text}{_share(len(never), len(every))}")
    for name, text in CLAIMS.items():
        if false := [facts for facts in every if facts.get(name) is False]:
            found.append(f"{text}{_share(len(false), len(every))}")
    return found


def span(seconds: float) -> str:
    """Return a duration in words of two digits or so."""
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"


def _praise(figures: Mapping[str, Any]) -> list[str]:
    """The times that came, and what else was counted."""
    said = [f"{text} {span(max(0.0, figures[name]))}" for name, (text, _) in TIMES.items() if name in figures]
    if "workers_killed" in figures:
        said.append(f"workers killed: {figures['workers_killed']}")
    if figures.get("refused"):
        said.append(f"{figures['refused']} refused")
    return said


def _figures(every: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name in {name: None for facts in every for name in facts}:  # their order, each once
        values = [facts[name] for facts in every if facts.get(name) is not None]
        if name in TIMES and values:
            figures[name] = statistics.median(values)
        elif values and isinstance(values[0], bool):
            figures[name] = all(values)
        elif values and isinstance(values[0], int):
            figures[name] = max(values)
        elif values and isinstance(values[0], str):
            figures[name] = "/".join(sorted(set(values)))
    return figures


def _spread(every: Sequence[Mapping[str, Any]]) -> float:
    widest = 0.0
    for name in TIMES:
        values = [facts[name] for facts in every if facts.get(name) is not None]
        if len(values) > 1 and (middle := statistics.median(values)) > 0:
            widest = max(widest, (max(values) - min(values)) / middle)
    return widest


def _share(some: int, of: int) -> str:
    return "" if some == of else f" ({some} of {of} runs)"
