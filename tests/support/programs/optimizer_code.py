"""Code that optimizers are given: by import path and by value; and programs of three predictors, for DSPy and DSPex."""

from __future__ import annotations

from typing import Any


def keeping(candidate: Any, reflective_dataset: Any, components_to_update: Any) -> dict[str, str]:
    """An instruction proposer that asks nobody."""
    return {name: f"{candidate[name]} Double it." for name in components_to_update}


class Keeping:
    """The same, as a class."""

    def __call__(self, candidate: Any, reflective_dataset: Any, components_to_update: Any) -> dict[str, str]:
        return keeping(candidate, reflective_dataset, components_to_update)


def last(state: Any, trajectories: Any, subsample_scores: Any, candidate_idx: Any, candidate: Any) -> list[str]:
    """A component selector."""
    return [list(candidate)[-1]]


async def awaited(candidate: Any, reflective_dataset: Any, components_to_update: Any) -> dict[str, str]:
    return {}


def of_one(candidate: Any) -> dict[str, str]:
    return {}
