"""Write spans of time, sizes and money as people read them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def span(seconds: float) -> str:
    """Return a time as people read it, such as 3h12m."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if hours < 1:
        return f"{minutes}m{int(seconds % 60):02d}s"
    return f"{hours}h{minutes % 60:02d}m" if days < 1 else f"{days}d{hours % 24:02d}h"


def size(number: float) -> str:
    """Return a size as people read it, such as 61 MiB."""
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"


def spent(usage: Mapping[str, Any]) -> str:
    """Return the usage of language models for people to read; empty if there was none."""
    if not usage["requests"] and not usage["cached_requests"]:
        return ""
    unpriced = f" ({usage['unpriced_requests']:,} without a price)" if usage["unpriced_requests"] else ""
    cost = f", {usage['cost_usd']:.4f} USD" if usage["unpriced_requests"] < usage["requests"] else ""
    return (
        f"{usage['requests']:,} requests{unpriced}, {usage['cached_requests']:,} from the cache, "
        f"{usage['total_tokens']:,} tokens{cost}"
    )
