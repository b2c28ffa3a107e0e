"""Print the scorecard as text, case by case and then a summary, and as JSON."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .card import Scorecard
from .cases import CASES, Case
from .scoring import Cell, Mark

MARKS = (Mark.HELD, Mark.FAILED, Mark.LACKS, Mark.UNMEASURED)


def block(case: Case, cells: Sequence[Cell]) -> str:
    """Return one case: a line of its title, and one for each peer."""
    width = max(len(cell.peer) for cell in cells)
    lines = [f"  {cell.peer:{width}}  {cell.mark:6}  {cell.text}" for cell in cells]
    return "\n".join([f"{case.title} [{case.name}]", *lines])


def summary(cells: Sequence[Cell]) -> str:
    """Return how many cases each peer held, failed, and has no feature for; and what an absent one needs."""
    peers = list(dict.fromkeys(cell.peer for cell in cells))
    width = max(map(len, peers))
    lines = [" " * width + "".join(f"{mark:>8}" for mark in MARKS)]
    for peer in peers:
        counts = Counter(cell.mark for cell in cells if cell.peer == peer)
        missing = next((cell.text for cell in cells if cell.peer == peer and cell.mark is Mark.ABSENT), "")
        numbers = "".join(f"{counts[mark]:8}" for mark in MARKS)
        lines.append(f"{peer:{width}}{f'  {missing}' if missing else numbers}")
    return "\n".join(lines)


def noise(card: Scorecard, cells: Sequence[Cell], loads: tuple[float, float]) -> str:
    """Return a line on how far the times may be trusted."""
    text = f"Times are medians of {card.repeats} trials" if card.repeats > 1 else "Times are those of one trial"
    widest = max((cell.spread for cell in cells), default=0.0)
    if widest:
        text += f"; within a cell the extremes lay up to {widest:.1f} times its median apart"
    return f"{text}. The machine's load was {loads[0]:.1f} before and {loads[1]:.1f} after."


def document(card: Scorecard, cells: Sequence[Cell], loads: tuple[float, float]) -> dict[str, Any]:
    """Return everything, with each trial's facts, to be kept as JSON."""
    return {
        "machine": machine(),
        "load": list(loads),
        "repeats": card.repeats,
        "versions": card.versions(),
        "cases": {name: CASES[name].title for name in card.cases},
        "cells": [cell.as_wire() for cell in cells],
    }


def machine() -> Mapping[str, Any]:
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": len(os.sched_getaffinity(0)),
    }
