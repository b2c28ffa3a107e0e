"""`dspex status`: print the state of a live supervisor."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

import click

from .exit_codes import FAILED, OK, STARTING
from .option_types import SPAN
from .printing import print_json, print_line
from .shared_options import command, target_options
from .target import Target

LIVE = ("queued", "running", "cancelling")  # jobs


@command("status")
@target_options
@click.option(
    "--watch", is_flag=False, flag_value="1", type=SPAN, metavar="[S]", help="Again every S seconds (default: 1)."
)
def status(target: Target, watch: float | None, as_json: bool) -> int:
    """Print it once, or again and again with --watch; the exit code says how it is."""
    with target.connect() as client:
        while True:
            seen = client.status()
            if as_json:
                print_json(seen, indent=None if watch else 2)
            else:
                if watch and sys.stdout.isatty():
                    sys.stdout.write("\x1b[H\x1b[2J")
                print_line(render(seen))
            if watch is None:
                return exit_code(seen["health"])
            time.sleep(watch)


def exit_code(health: Mapping[str, Any]) -> int:
    """Return 0 when every pool is ready; 4 when those that are not are only starting; else 1."""
    states = {row["state"] for row in health.values() if not row["is_ready"]}
    if not states:
        return OK
    return STARTING if states == {"starting"} else FAILED


def render(seen: dict[str, Any]) -> str:
    """Return the text of one status."""
    who = seen["supervisor"]
    lines = [
        f"supervisor {who['name']}: pid {who['pid']}, up {span(who['uptime_s'])}, dspex {who['version']}, "
        f"{who['clients']} client(s), settings {who['settings']}"
    ]
    if usage := spent(seen["usage"]):
        lines.append(f"language models: {usage}")
    lines += [_job_line(row) for row in seen.get("jobs", ()) if row["state"] in LIVE]
    for stats in seen["pools"].values():
        lines += ["", *_pool_lines(stats, seen["health"].get(stats["pool"], {}))]
    return "\n".join(lines)


def _job_line(row: Mapping[str, Any]) -> str:
    trials = "" if row["trials"] is None else f" of {row['trials']}"
    best = "" if row["best"] is None else f", best {row['best']:g}"
    return (
        f"optimization {row['id']}: {row['optimizer']} of {row['program']}, {row['state']}, {row['stage']}, candidate "
        f"{row['trial']}{trials}{best}, {row['requests']:,} requests, {span(row['elapsed'])}"
    )


def _pool_lines(stats: dict[str, Any], health: dict[str, Any]) -> Iterable[str]:
    counts = " ".join(f"{name} {number:,}" for name, number in stats["counts"].items())
    yield (
        f"pool {stats['pool']}: {stats['state']}, {len(stats['workers'])}/{stats['size']} workers, "
        f"{stats['in_flight']} running, {stats['queued']}/{stats['queue_limit']} queued, {stats['sessions']} sessions"
    )
    yield f"  calls: {counts}"
    if usage := spent(stats["usage"]):
        yield f"  language models: {usage}"
    cap = stats["memory"]["cap_bytes"]
    yield f"  memory cap: {size(cap) if cap else 'none'}"
    if cap:
        yield from _enforcement(stats["memory"])
    yield f"  lifeline: {stats['lifeline']}; reaper: {stats['reaper']}"
    if not health.get("is_ready", True):
        yield f"  not ready: {health.get('reason', '')}"
    elif stats["last_boot_error"]:
        yield f"  last boot error: {stats['last_boot_error']}"
    for digest, seconds in stats["poison"].items():
        yield f"  quarantine: {digest} for {span(seconds)} more"
    if stats["workers"]:
        yield from _table(stats["workers"], cap)


def _enforcement(memory: dict[str, Any]) -> Iterable[str]:
    if not memory["is_enforced"]:
        yield "    NOT ENFORCED: nothing ends a worker that goes over the cap"
    for layer in memory["layers"]:
        yield f"    {layer}"
    for layer in memory["missing"]:
        yield f"    (no) {layer}"


def _table(workers: list[dict[str, Any]], cap: int | None) -> Iterable[str]:
    heads = ["worker", "gen", "pid", "phase", "running", "queued", "sessions", "answered", "age", "rss", "peak"]
    heads[-1:] = ["of cap", "peak"] if cap else ["peak"]
    rows = [
        [
            row["worker"],
            str(row["generation"]),
            str(row["pid"] or "-"),
            row["phase"],
            f"{row['running']}" + (f" ({row['abandoned']} abandoned)" if row["abandoned"] else ""),
            str(row["queued"]),
            str(row["sessions"]),
            f"{row['answered']:,}",
            span(row["age_s"]),
            size(row["rss_bytes"]) if row["rss_bytes"] else "-",
            *([f"{100 * row['counted_bytes'] / cap:.0f}%"] if cap else []),
            size(row["peak_bytes"]) if row["peak_bytes"] else "-",
        ]
        for row in workers
    ]
    widths = [max(len(line[i]) for line in [heads, *rows]) for i in range(len(heads))]
    for line in [heads, *rows]:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def spent(usage: Mapping[str, Any]) -> str:
    """Return the usage of language models for people to read; empty if there was none."""
    if not usage["requests"] and not usage["cached_requests"]:
        return ""
    unpriced = f" ({usage['unpriced_requests']:,} without a price)" if usage["unpriced_requests"] else ""
    return (
        f"{usage['requests']:,} requests{unpriced}, {usage['cached_requests']:,} from the cache, "
        f"{usage['total_tokens']:,} tokens, {usage['cost_usd']:.4f} USD"
    )


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
