"""Count the usage of a call in one tracker, whichever of its threads asks.

DSPy gives each row of its executors (`dspy.Parallel`, `Module.batch`) a copy of the tracker, so that what rows use is
never added to what the call used. What the parent's cache answered was not used at all.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from dspy.utils.usage_tracker import UsageTracker

from .lm_transport import current_lm_call


def install() -> None:
    """Change DSPy's tracker, in this process from now on."""
    tracker: Any = UsageTracker
    tracker.__deepcopy__ = _itself
    tracker.add_usage = _adding(tracker.add_usage)


def _itself(self: Any, memo: Any) -> Any:
    return self


def _adding(add_usage: Any) -> Any:
    @wraps(add_usage)
    def add_what_was_used(self: Any, lm: str, usage_entry: dict[str, Any]) -> None:
        asked = current_lm_call()
        if asked is None or not asked.were_cached or not all(asked.were_cached):
            add_usage(self, lm, usage_entry)

    return add_what_was_used
