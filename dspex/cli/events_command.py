"""`dspex events`: print the last events of a live supervisor, and follow new ones."""

from __future__ import annotations

import logging
import time
from typing import Any

import click

from .option_types import COUNT
from .printing import print_json, print_line
from .shared_options import command, target_options
from .target import Target


@command("events", more="With --json an object a line.")
@target_options
@click.option("--follow", "-f", is_flag=True, help="Go on until interrupted.")
@click.option("--recent", type=COUNT, metavar="N", help="At most N of the last events.")
def events(target: Target, follow: bool, recent: int | None, as_json: bool) -> None:
    """Print the last events; with --follow until interrupted or the supervisor stops."""
    with target.connect() as client:
        for row in client.events(follow=follow, recent=recent):
            if as_json:
                print_json(row, indent=None)
            else:
                print_line(line_of(row))


def line_of(row: dict[str, Any]) -> str:
    """Return an event as a line, or how many were dropped."""
    if "dropped" in row:
        return f"... {row['dropped']} events were dropped: they came faster than they were read"
    at = time.strftime("%H:%M:%S", time.localtime(row["time"])) + f".{int(row['time'] % 1 * 1000):03d}"
    facts = " ".join(f"{key}={value}" for key, value in row["facts"].items() if value not in (None, ""))
    level: int = row["level"]
    return f"{at} {logging.getLevelName(level):7} {row['name']} {facts}".rstrip()
