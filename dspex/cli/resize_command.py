"""`dspex resize`: change how many workers a pool has."""

from __future__ import annotations

import click

from ..control.protocol import Verb
from .completions import pool_names
from .option_types import COUNT
from .printing import print_json, print_line
from .shared_options import command, target_options
from .target import Target


@command("resize")
@target_options
@click.argument("pool", metavar="POOL", help="The pool's name.", shell_complete=pool_names)
@click.argument("size", metavar="SIZE", type=COUNT, help="How many workers.")
def resize(target: Target, pool: str, size: int, as_json: bool) -> None:
    """Aim at another number of workers; returns at once."""
    with target.connect() as client:
        client.ask(Verb.RESIZE, {"pool": pool, "size": size})
    if as_json:
        print_json({"pool": pool, "size": size})
    else:
        print_line(f"pool {pool}: {size} workers are the aim now")
