"""`dspex recycle`: replace a pool's workers."""

from __future__ import annotations

import sys

import click

from ..control.operator_client import patience
from ..control.protocol import Verb
from .completions import pool_names
from .printing import print_json, print_line
from .shared_options import command, target_options, timeout_option
from .target import Target


@command("recycle")
@target_options
@click.argument("pool", metavar="POOL", help="The pool's name.", shell_complete=pool_names)
@click.option("--reload", is_flag=True, help="Import the workers' code anew.")
@timeout_option("Wait no longer; it goes on.")
def recycle(target: Target, pool: str, reload: bool, timeout: float | None, as_json: bool) -> None:
    """Replace every worker and wait."""
    with target.connect() as client:
        stateful = client.status()["pools"].get(pool, {}).get("sessions", 0)
        if stateful and sys.stderr.isatty():  # sessions with state hold their worker for up to session_drain (S8)
            sys.stderr.write(f"waiting for {stateful} session(s) that may hold state; Ctrl-C ends the wait only\n")
        client.ask(Verb.RECYCLE, {"pool": pool, "reload": reload, "timeout": timeout}, wait=patience(timeout))
    if as_json:
        print_json({"pool": pool, "recycled": True})
    else:
        print_line(f"pool {pool}: every worker is replaced")
