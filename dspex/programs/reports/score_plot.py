"""Draw the scores of an optimization's trials, and the best so far, with matplotlib."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import InvalidInput, MissingDependency
from .trial_history import Trial, best_so_far

SUFFIXES = (".png", ".svg", ".pdf")
_MARKS = {"baseline": "s", "full": "o", "minibatch": ".", "result": "D"}


def plot_scores(trials: Sequence[Trial], path: str | os.PathLike[str], *, title: str = "") -> None:
    """Write the plot; its form is the path's suffix.

    Raises:
        MissingDependency: matplotlib is not installed.
        InvalidInput: there is no trial, or no such form.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise InvalidInput(
            f"A plot is written as {', '.join(SUFFIXES)}, not as {suffix or 'no suffix'!r}.", field="path"
        )
    if not trials:
        raise InvalidInput("There is no trial to plot.", field="trials")
    figure = _figure()
    axes = figure.subplots()
    numbers = [int(trial["trial"]) for trial in trials]
    for kind, mark in _MARKS.items():
        of_kind = [
            (number, trial["score"]) for number, trial in zip(numbers, trials, strict=True) if trial["kind"] == kind
        ]
        if of_kind:
            axes.plot(*zip(*of_kind, strict=True), mark, label=kind)
    known = [(number, best) for number, best in zip(numbers, best_so_far(trials), strict=True) if best is not None]
    if known:
        axes.step(*zip(*known, strict=True), where="post", label="best so far", linewidth=1)
    axes.set(xlabel="trial", ylabel="score, %", ylim=(-3, 103))
    axes.set_title(title, parse_math=False)  # a name with a dollar sign is no formula
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path)


def _figure() -> Any:
    """Return a figure of its own; pyplot would keep it, and choose a display.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingDependency(
            "plot needs matplotlib: pip install 'dspex[plot]'. (report() draws its curve without it.)",
            package="matplotlib",
            extra="plot",
        ) from error
    return Figure(figsize=(7, 4), dpi=120, layout="constrained")
