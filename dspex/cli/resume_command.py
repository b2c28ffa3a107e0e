"""`dspex resume`: undo a drain."""

from __future__ import annotations

import click

from .completions import pool_names
from .printing import print_json, print_line
from .shared_options import command, target_options
from .target import Target


@command("resume")
@target_options
@click.argument("pool", metavar="POOL", help="The pool's name.", shell_complete=pool_names)
def resume(target: Target, pool: str, as_json: bool) -> None:
    """Have a drained pool take calls again."""
    with target.connect() as client:
        was_closed = client.resume(pool)
    if as_json:
        print_json({"pool": pool, "was_drained": was_closed})
    else:
        print_line(f"pool {pool}: takes calls{' again' if was_closed else '; it was not drained'}")


def stays_closed(pool: str) -> str:
    """Return what other commands add about a pool that was drained."""
    return f"; it was drained, and stays closed to calls until `dspex resume {pool}`"
