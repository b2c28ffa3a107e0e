"""Show `stats()` in a notebook: the same dicts, with a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from ..html_views import grid

if TYPE_CHECKING:
    from .stats import PoolStats

_HEADS = ("pool", "state", "workers", "queued", "in flight", "answered", "died", "MiB", "requests", "USD")
_WORKER = ("worker", "pid", "phase", "running", "queued", "answered", "age_s", "rss_bytes")


class ShownPool(dict[str, Any]):
    """The stats of one pool, which a notebook shows as a table of its workers."""

    def _repr_html_(self) -> str:
        rows = [[_cell(name, row.get(name)) for name in _WORKER] for row in self["workers"]]
        note = f"{self['state']}; {self['queued']} of {self['queue_limit']} queued; {self['in_flight']} in flight"
        return grid(_WORKER, rows, title=f"Pool {self['pool']}", note=note)


class ShownPools(dict[str, Any]):
    """The stats of all pools, which a notebook shows as a table."""

    def _repr_html_(self) -> str:
        return grid(_HEADS, [_row(stats) for stats in self.values()], title="Pools")


def shown_pool(stats: PoolStats) -> PoolStats:
    """Return the same stats, with a form for notebooks."""
    return cast("PoolStats", ShownPool(stats))


def shown_pools(stats: Mapping[str, PoolStats]) -> dict[str, PoolStats]:
    """Return the same stats, with a form for notebooks."""
    return cast("dict[str, PoolStats]", ShownPools(stats))


def _row(stats: PoolStats) -> list[Any]:
    workers = stats["workers"]
    return [
        stats["pool"],
        stats["state"],
        f"{sum(row['phase'] == 'ready' for row in workers)} of {stats['size']}",
        stats["queued"],
        stats["in_flight"],
        sum(row["answered"] for row in workers),
        stats["counts"].get("deaths", 0),
        f"{sum(row['rss_bytes'] for row in workers) / 2**20:.0f}",
        stats["usage"]["requests"],
        f"{stats['usage']['cost_usd']:.4f}",
    ]


def _cell(name: str, value: Any) -> Any:
    if name == "rss_bytes":
        return f"{value / 2**20:.0f} MiB"
    return f"{value:.0f}" if isinstance(value, float) else value
