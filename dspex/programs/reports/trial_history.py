"""An optimization's trials as rows: one flat dict for each, with the best score so far. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import MissingDependency

Trial = Mapping[str, Any]
_FULL = "full"


def history_rows(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Return a row for each trial: numbers, and for each predictor its instructions and how many demos it had.

    `best` is the best so far among the scores that can be compared: on every example of the set that the optimizer
    scores its candidates on. It is None before there is one.
    """
    rows, best = [], best_so_far(trials)
    for trial, so_far in zip(trials, best, strict=True):
        row = {name: trial.get(name) for name in ("trial", "kind", "set", "score")}
        row["best"] = so_far
        row |= {name: trial.get(name) for name in ("examples", "seconds", "requests", "cost")}
        instructions, demos = trial.get("instructions") or {}, trial.get("demos") or {}
        for name, text in instructions.items():
            row[_column("instructions", name)] = text
        for name, given in demos.items():
            row[_column("demos", name)] = len(given)
        rows.append(row)
    return rows


def as_history_frame(trials: Sequence[Trial]) -> Any:
    """Return the rows as a DataFrame.

    Raises:
        MissingDependency: pandas is not installed.
    """
    try:
        import pandas  # type: ignore[import-untyped]  # pyright: ignore[reportMissingImports] - an optional package
    except ImportError as error:
        raise MissingDependency("history needs pandas for that: pip install pandas.", package="pandas") from error
    return pandas.DataFrame(history_rows(trials))


def compared_set(trials: Sequence[Trial]) -> str:
    """Return the set on which the optimizer scores candidates in full: "val", "train", or "" for neither."""
    return next((str(trial.get("set", "")) for trial in trials if trial.get("kind") == _FULL), "val")


def is_comparable(trial: Trial, of_set: str) -> bool:
    """Whether its score is one on every example of that set."""
    return trial.get("kind") != "minibatch" and trial.get("set", of_set) == of_set


def best_so_far(trials: Sequence[Trial]) -> list[float | None]:
    """Return the best comparable score up to each trial."""
    of_set, best, found = compared_set(trials), None, list[float | None]()
    for trial in trials:
        if is_comparable(trial, of_set) and (best is None or trial["score"] > best):
            best = trial["score"]
        found.append(best)
    return found


def _column(what: str, predictor: str) -> str:
    return what if predictor == "self" else f"{predictor}.{what}"
