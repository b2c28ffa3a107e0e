"""`dspex status`: print the state of a live supervisor."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import click

from ..errors import ConnectionLost, NotRunning, Unresponsive
from .colors import is_terminal
from .exit_codes import FAILED, OK, STARTING
from .option_types import SPAN
from .printed_units import size, span, spent
from .printing import print_error, print_json, print_text
from .shared_options import command, target_options
from .status_text import status_text
from .target import Target

__all__ = ["exit_code", "size", "span", "spent", "status"]


@command("status", more="With --watch it waits for a service that is gone, and goes on when it is back.")
@target_options
@click.option(
    "--watch", is_flag=False, flag_value="1", type=SPAN, metavar="[S]", help="Again every S seconds (default: 1)."
)
def status(target: Target, watch: float | None, as_json: bool) -> int:
    """Print it once, or again and again with --watch; the exit code says how it is."""
    if watch is not None:
        for seen in watched(target, watch):
            _print(seen, as_json=as_json, is_watch=True)
    with target.connect() as client:
        seen = client.status()
    _print(seen, as_json=as_json, is_watch=False)
    return exit_code(seen["health"])


def watched(target: Target, interval: float) -> Iterator[Mapping[str, Any]]:
    """Yield the status every `interval` seconds without end; it must have answered once.

    Raises:
        NotRunning, Unresponsive: it did not answer the first time.
    """
    has_answered = False
    why = ""
    while True:
        try:
            with target.connect() as client:
                while True:
                    seen = client.status()
                    has_answered, why = True, ""
                    yield seen
                    time.sleep(interval)
        except (NotRunning, ConnectionLost, Unresponsive) as error:
            if not has_answered:
                raise
            if not why:
                print_error(f"waiting for the service: {error}")
            why = str(error)
            time.sleep(interval)


def _print(seen: Mapping[str, Any], *, as_json: bool, is_watch: bool) -> None:
    if as_json:
        print_json(seen, indent=None if is_watch else 2)
        return
    if is_watch and is_terminal():
        sys.stdout.write("\x1b[H\x1b[2J")
    print_text(status_text(seen))


def exit_code(health: Mapping[str, Any]) -> int:
    """Return 0 when every pool is ready; 4 when those that are not are only starting; else 1."""
    states = {row["state"] for row in health.values() if not row["is_ready"]}
    if not states:
        return OK
    return STARTING if states == {"starting"} else FAILED
