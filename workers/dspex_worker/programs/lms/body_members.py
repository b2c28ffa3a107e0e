"""Tell the options that DSPy words from those that go into a request's body as they are, which the parent puts there.

A record says what DSPy's own client words for its provider, and what that would leave out in silence. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspy.utils.exceptions import LMUnsupportedFeatureError

from ..dspy_parts import CLIENT_KEYS

_OF_THE_CALL = frozenset({"model", "messages", "n", "num_generations", "rollout_id", "cache", "prompt_cache"})


def members_in(record: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an LM call that the parent is to put into the body.

    Raises:
        LMUnsupportedFeatureError: one would not get to the provider.
    """
    worded = record.get("worded")
    if worded is None:
        return {}
    apart = {*worded, *_OF_THE_CALL, *CLIENT_KEYS}
    refused: Mapping[str, str] = record.get("refused") or {}
    for name in refused.keys() & options.keys():
        if options[name] is not None and options[name] is not (name == "parallel_tool_calls"):
            model = str(record["model"])
            raise LMUnsupportedFeatureError(
                f"{name} would not be sent: {model.partition('/')[0]} {refused[name]}. extra_body={{{name!r}: ...}} "
                f"sends it as it is.",
                model=model,
            )
    return {name: value for name, value in options.items() if value is not None and name not in apart | refused.keys()}
