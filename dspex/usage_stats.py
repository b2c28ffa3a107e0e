"""`UsageStats`: the usage of language models, as every layer reports it. Plain data."""

from __future__ import annotations

from typing import Any, TypedDict


class UsageStats(TypedDict):
    """`cost_usd` is of the requests whose price is known; `unpriced_requests` says how many it leaves out.

    `requests` were answered by a model (in part, where a stream was given up), `cached_requests` by the cache, which
    costs nothing. `models` has the providers' own counters, by model.
    """

    requests: int
    cached_requests: int
    unpriced_requests: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost_usd: float
    models: dict[str, dict[str, Any]]


def no_usage() -> UsageStats:
    """Return the usage of nothing."""
    return {
        "requests": 0,
        "cached_requests": 0,
        "unpriced_requests": 0,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "total_tokens": 0,
        "cost_usd": 0.0,
        "models": {},
    }
