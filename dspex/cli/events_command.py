"""`dspex events`: print the last events of a live supervisor, and follow new ones."""

from __future__ import annotations

import argparse
import logging
import time
from typing import Any

from .exit_codes import OK
from .target import connect, print_json, print_line


def events(options: argparse.Namespace) -> int:
    """Print the last events; with --follow until interrupted or the supervisor stops."""
    with connect(options) as client:
        for row in client.events(follow=options.follow, recent=options.recent):
            if options.json:
                print_json(row, indent=None)
            else:
                print_line(_line(row))
    return OK


def _line(row: dict[str, Any]) -> str:
    if "dropped" in row:
        return f"... {row['dropped']} events were dropped: they came faster than they were read"
    at = time.strftime("%H:%M:%S", time.localtime(row["time"])) + f".{int(row['time'] % 1 * 1000):03d}"
    facts = " ".join(f"{key}={value}" for key, value in row["facts"].items() if value not in (None, ""))
    level: int = row["level"]
    return f"{at} {logging.getLevelName(level):7} {row['name']} {facts}".rstrip()
