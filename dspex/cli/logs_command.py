"""`dspex logs`: print the last lines of a live supervisor's log, and follow new ones."""

from __future__ import annotations

import logging
import time
from typing import Any

import click

from .completions import pool_names
from .events_command import line_of
from .option_types import COUNT
from .printing import print_json, print_line
from .shared_options import command, target_options
from .target import Target


@command("logs", more="What workers print and log is there, with its ids. With --json an object a line.")
@target_options
@click.argument("pool", metavar="[POOL]", required=False, help="Only this pool's.", shell_complete=pool_names)
@click.option("--worker", type=COUNT, metavar="N", help="Only of the pool's worker N: 0 for dspy/0.")
@click.option("--follow", "-f", is_flag=True, help="Go on until interrupted.")
@click.option("--recent", "-n", type=COUNT, metavar="N", help="At most N of the last lines (default: all kept).")
def logs(target: Target, pool: str | None, worker: int | None, follow: bool, recent: int | None, as_json: bool) -> None:
    """Print the last lines; with --follow until interrupted or the supervisor stops."""
    if worker is not None and pool is None:
        raise click.UsageError("--worker needs the pool's name before it.")
    with target.connect() as client:
        for row in client.logs(pool, worker, follow=follow, recent=recent):
            if as_json:
                print_json(row, indent=None)
            else:
                print_line(_line(row))


def _line(row: dict[str, Any]) -> str:
    if row.get("name") != "dspex.worker.logged":
        return line_of(row)
    facts = row["facts"]
    at = time.strftime("%H:%M:%S", time.localtime(row["time"])) + f".{int(row['time'] % 1 * 1000):03d}"
    ids = [f"{name}={facts[name]}" for name in ("pid", "call", "session") if facts.get(name)]
    where = " ".join([facts["worker"], *ids, facts["logger"]])
    level: int = row["level"]
    text = str(facts["text"]).replace("\n", "\n    ")
    return f"{at} {logging.getLevelName(level):7} [{where}] {text}"
