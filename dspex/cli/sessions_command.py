"""`dspex sessions`: show the sessions of a live supervisor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .completions import pool_names
from .option_types import POSITIVE
from .printed_units import span
from .printing import print_error, print_json, print_text
from .shared_options import command, target_options
from .tables import table
from .target import Target

if TYPE_CHECKING:
    from ..pools.session_rows import SessionRow

HEADS = ("session", "pool", "client", "worker", "running", "waiting", "state", "idle", "lost")


@command("sessions", more="The last used are first.")
@target_options
@click.argument("pool", metavar="[POOL]", required=False, help="Only this pool's.", shell_complete=pool_names)
@click.option("--limit", type=POSITIVE, default=1000, metavar="N", help="At most N (1000).")
def sessions(target: Target, pool: str | None, limit: int, as_json: bool) -> None:
    """Print a line for each."""
    with target.connect() as client:
        rows = client.sessions(pool, limit=limit)
    if as_json:
        print_json(rows)
    elif not rows:
        print_error("there are no sessions")
    else:
        print_text(table(HEADS, [_cells(row) for row in rows]))


def _cells(row: SessionRow) -> tuple[str, ...]:
    kind = "durable" if row["is_durable"] else "in its worker" if row["is_stateful"] else "-"
    counts = str(row["running"]), str(row["waiting"])
    return (
        row["session"],
        row["pool"],
        row["client"],
        row["worker"] or "-",
        *counts,
        kind,
        span(row["idle_s"]),
        row["lost"] or "-",
    )
