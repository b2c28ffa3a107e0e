"""Say how many candidates an optimizer will evaluate, where its options say it. Pure.

MIPROv2 and COPRO say it in their logs; GEPA counts metric calls, SIMBA batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PLANS: Mapping[str, tuple[str, int, int]] = {  # the option, its default, and what comes beside
    "random_search": ("num_candidate_programs", 16, 3),  # zero-shot, labels only, unshuffled
    "optuna": ("num_candidate_programs", 16, 0),
    "infer_rules": ("num_candidates", 10, 0),
}


def planned_trials(optimizer: str, options: Mapping[str, Any]) -> int | None:
    """Return the number of candidates, None where the options do not say it."""
    if optimizer not in _PLANS:
        return None
    option, default, beside = _PLANS[optimizer]
    return int(options.get(option, default)) + beside
