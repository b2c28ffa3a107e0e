"""Check the trials that a file tells of: history, plot and report rely on their form. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_KINDS: Mapping[str, tuple[type, ...]] = {"trial": (int,), "kind": (str,), "score": (int, float)}
_MAPS = ("instructions", "demos", "fields")
_LISTS = ("scores", "rows")


def damage_of_trials(trials: list[Any]) -> str:
    """Return what is wrong with them, "" if nothing is."""
    for at, trial in enumerate(trials):
        if not isinstance(trial, Mapping):
            return f"trials[{at}] is a {type(trial).__name__}"
        for name, kinds in _KINDS.items():
            if name in trial and (not isinstance(trial[name], kinds) or isinstance(trial[name], bool)):
                return f"trials[{at}].{name} is a {type(trial[name]).__name__}"
        for name in _MAPS:
            if not isinstance(trial.get(name, {}), Mapping):
                return f"trials[{at}].{name} is a {type(trial[name]).__name__}"
        if wrong := _wrong_rows(trial):
            return f"trials[{at}].{wrong}"
    return ""


def _wrong_rows(trial: Mapping[str, Any]) -> str:
    for name in _LISTS:
        if not isinstance(trial.get(name, []), list):
            return f"{name} is a {type(trial[name]).__name__}"
    if not all(isinstance(score, int | float) for score in trial.get("scores", ())):
        return "scores holds no numbers"
    if not all(row is None or _is_row(row) for row in trial.get("rows", ())):
        return "rows names no examples"
    return ""


def _is_row(row: Any) -> bool:
    return isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) and isinstance(row[1], int)
