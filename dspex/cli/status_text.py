"""Write the status of a supervisor for people: its pools, and a row for each worker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..terminal_text import inert_line
from .colors import painted
from .printed_units import size, span, spent
from .tables import prose, table

LIVE = ("queued", "running", "cancelling")  # jobs


def status_text(seen: Mapping[str, Any]) -> str:
    """Return the text of one status."""
    who = seen["supervisor"]
    parts = [
        f"supervisor {who['name']}: pid {who['pid']}, up {span(who['uptime_s'])}, dspex {who['version']}, "
        f"{who['clients']} client(s), settings {who['settings']}"
    ]
    if usage := spent(seen["usage"]):
        parts.append(f"language models: {usage}")
    parts += [_job_line(row) for row in seen.get("jobs", ()) if row["state"] in LIVE]
    lines = [prose(inert_line(part), indent=2) for part in parts]
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


def _pool_lines(stats: Mapping[str, Any], health: Mapping[str, Any]) -> Iterable[str]:
    text = (
        f"pool {stats['pool']}: {stats['state']}, {len(stats['workers'])}/{stats['size']} workers, "
        f"{stats['in_flight']} running, {stats['queued']}/{stats['queue_limit']} queued, {stats['sessions']} sessions"
    )
    begin = f"pool {stats['pool']}: "
    yield begin + painted(stats["state"]) + prose(text, indent=2)[len(begin) + len(stats["state"]) :]
    for line in _facts(stats, health):
        yield prose(inert_line(line), indent=2)
    if stats["workers"]:
        yield _workers(stats["workers"], stats["memory"]["cap_bytes"])


def _facts(stats: Mapping[str, Any], health: Mapping[str, Any]) -> Iterable[str]:
    yield f"  calls: {' '.join(f'{name} {number:,}' for name, number in stats['counts'].items())}"
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


def _enforcement(memory: Mapping[str, Any]) -> Iterable[str]:
    if not memory["is_enforced"]:
        yield "    NOT ENFORCED: nothing ends a worker that goes over the cap"
    for layer in memory["layers"]:
        yield f"    {layer}"
    for layer in memory["missing"]:
        yield f"    (no) {layer}"


def _workers(workers: Iterable[Mapping[str, Any]], cap: int | None) -> str:
    heads = ["worker", "gen", "pid", "phase", "running", "queued", "sessions", "answered", "age", "rss"]
    heads += ["of cap", "peak"] if cap else ["peak"]
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
    return table(heads, rows, indent=2)
