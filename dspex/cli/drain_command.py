"""`dspex drain`: let a pool take no new calls."""

from __future__ import annotations

import click

from ..control.operator_client import patience
from ..control.protocol import Verb
from .completions import pool_names
from .printing import print_json, print_line
from .shared_options import command, target_options, timeout_option
from .target import Target


@command("drain")
@target_options
@click.argument("pool", metavar="POOL", help="The pool's name.", shell_complete=pool_names)
@timeout_option("Wait no longer; it stays closed.")
def drain(target: Target, pool: str, timeout: float | None, as_json: bool) -> None:
    """Close the pool to new calls and wait for the others."""
    with target.connect() as client:
        client.ask(Verb.DRAIN, {"pool": pool, "timeout": timeout}, wait=patience(timeout))
    if as_json:
        print_json({"pool": pool, "drained": True})
    else:
        print_line(f"pool {pool}: takes no calls, and none is running")
