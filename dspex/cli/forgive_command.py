"""`dspex forgive`: end the quarantine of a call."""

from __future__ import annotations

import click

from ..control.protocol import Verb
from .completions import pool_names
from .exit_codes import FAILED, OK
from .printing import print_json, print_line
from .shared_options import command, target_options
from .target import Target


@command("forgive")
@target_options
@click.argument("pool", metavar="POOL", help="The pool's name.", shell_complete=pool_names)
@click.argument("digest", metavar="DIGEST", help="As the PoisonCall error and `dspex status` name it.")
def forgive(target: Target, pool: str, digest: str, as_json: bool) -> int:
    """End a quarantine; 1 if there was none."""
    with target.connect() as client:
        was_there = bool(client.ask(Verb.FORGIVE, {"pool": pool, "digest": digest}))
    if as_json:
        print_json({"pool": pool, "digest": digest, "forgiven": was_there})
    else:
        print_line(f"pool {pool}: {'forgiven' if was_there else 'that digest is not in quarantine'}")
    return OK if was_there else FAILED
