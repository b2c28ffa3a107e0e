"""`dspex top`: show a live supervisor's pools and workers again and again, in place on a terminal."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from ..terminal_text import inert_line
from .colors import is_terminal, painted
from .option_types import POSITIVE, SPAN
from .printed_units import size, span, spent
from .printing import print_json, print_text
from .shared_options import command, target_options
from .status_command import watched
from .tables import prose, table
from .target import Target

POOLS = ("pool", "state", "workers", "memory", "queued", "running", "calls/s", "latency", "failed", "died")
WORKERS = ("worker", "pid", "phase", "running", "queued", "sessions", "answered", "age", "memory")


@command("top", more="Ctrl-C ends it. A service that is restarted meanwhile is waited for.")
@target_options
@click.option("--interval", type=SPAN, default=1.0, metavar="S", help="Between two looks (default: 1).")
@click.option("--count", type=POSITIVE, metavar="N", help="End after N looks.")
def top(target: Target, interval: float, count: int | None, as_json: bool) -> None:
    """Show it until interrupted; off a terminal one text after another, with JSON an object a line."""
    looks = itertools.islice(watched(target, max(0.05, interval)), count)
    if as_json:
        for seen in looks:
            print_json(seen, indent=None)
        return
    rates = CallRates()
    if not is_terminal():
        for seen in looks:
            print_text(top_text(seen, rates.of(seen)) + "\n")
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(), screen=count is None, auto_refresh=False) as live:
        for seen in looks:
            live.update(Text.from_ansi(top_text(seen, rates.of(seen))), refresh=True)


@dataclass(slots=True)
class CallRates:
    """Calls a second of each pool, between two looks."""

    before: Mapping[str, Any] | None = None

    def of(self, seen: Mapping[str, Any]) -> dict[str, float | None]:
        """Return them; None for a pool that was not seen before, or a service that has begun anew."""
        before, self.before = self.before, seen
        if before is None or before["supervisor"]["started_at"] != seen["supervisor"]["started_at"]:
            return {}
        seconds = seen["supervisor"]["uptime_s"] - before["supervisor"]["uptime_s"]
        return {
            name: (_ended(stats) - _ended(before["pools"][name])) / seconds
            for name, stats in seen["pools"].items()
            if name in before["pools"] and seconds > 0
        }


def top_text(seen: Mapping[str, Any], rates: Mapping[str, float | None]) -> str:
    """Return the text of one look."""
    who = seen["supervisor"]
    head = f"{who['name']}  pid {who['pid']}  up {span(who['uptime_s'])}  {who['clients']}/{who['max_clients']} clients"
    lines = [painted(head, "bold")]
    if usage := spent(seen["usage"]):
        lines.append(prose(inert_line(f"language models: {usage}"), indent=2))
    lines += ["", table(POOLS, [_pool(stats, rates.get(name)) for name, stats in seen["pools"].items()])]
    workers = [_worker(row) for stats in seen["pools"].values() for row in stats["workers"]]
    if workers:
        lines += ["", table(WORKERS, workers)]
    return "\n".join(lines)


def _pool(stats: Mapping[str, Any], rate: float | None) -> tuple[str, ...]:
    cap = stats["memory"]["cap_bytes"]
    held = size(sum(row["rss_bytes"] for row in stats["workers"]))
    ready = sum(row["phase"] == "ready" for row in stats["workers"])
    running = stats["in_flight"]
    waits = "-" if not rate else f"{1000 * running / rate:.0f}ms"  # Little's law: what is in flight, by the rate
    return (
        stats["pool"],
        stats["state"],
        f"{ready}/{stats['size']}",
        f"{held} of {size(cap * stats['size'])}" if cap else held,
        f"{stats['queued']}/{stats['queue_limit']}",
        str(running),
        "-" if rate is None else f"{rate:.1f}",
        waits,
        str(stats["counts"].get("failed", 0)),
        str(stats["counts"].get("deaths", 0)),
    )


def _worker(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        row["worker"],
        str(row["pid"] or "-"),
        row["phase"],
        str(row["running"]),
        str(row["queued"]),
        str(row["sessions"]),
        f"{row['answered']:,}",
        span(row["age_s"]),
        size(row["rss_bytes"]) if row["rss_bytes"] else "-",
    )


def _ended(stats: Mapping[str, Any]) -> int:
    counts = stats["counts"]
    return sum(int(counts.get(name, 0)) for name in ("answered", "failed", "expired", "cancelled"))
