"""Refuse requests of which lm15 would leave an option out in silence, as the host does for its own. Any thread."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from dspy.utils.exceptions import LMUnsupportedFeatureError


def require_whole(engine: Any, request: Any, droppable: Collection[str] | None) -> None:
    """Check that each option gets to the provider, but for those that may be left out; with None nothing is checked.

    Raises:
        LMUnsupportedFeatureError: one would not.
    """
    if droppable is None:
        return
    for each in engine.plan(request):
        if each.action == "dropped" and each.field not in droppable:
            name = str(each.field).removeprefix("config.")
            raise LMUnsupportedFeatureError(f"{name} would not be sent: {each.reason}.", model=request.model)
