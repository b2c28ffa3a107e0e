"""`dspex calls`: show the calls that run or wait."""

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
    from ..pools.call_rows import CallRow

HEADS = ("id", "pool", "command", "program", "phase", "age", "left", "worker", "session", "client")


@command("calls", more="The oldest are first. What they were given is not shown. `dspex cancel ID` ends one.")
@target_options
@click.argument("pool", metavar="[POOL]", required=False, help="Only this pool's.", shell_complete=pool_names)
@click.option("--limit", type=POSITIVE, default=1000, metavar="N", help="At most N (1000).")
def calls(target: Target, pool: str | None, limit: int, as_json: bool) -> None:
    """Print a line for each."""
    with target.connect() as client:
        rows = client.calls(pool, limit=limit)
    if as_json:
        print_json(rows)
    elif not rows:
        print_error("no call runs or waits")
    else:
        print_text(table(HEADS, [cells(row) for row in rows]))


def cells(row: CallRow) -> tuple[str, ...]:
    """Return a call's row in the table."""
    left = "-" if row["deadline_s"] is None else span(max(0.0, row["deadline_s"]))
    return (
        str(row["id"]),
        row["pool"],
        row["command"],
        row["program"] or "-",
        row["phase"],
        span(row["age_s"]),
        left,
        row["worker"] or "-",
        row["session"] or "-",
        row["client"],
    )
