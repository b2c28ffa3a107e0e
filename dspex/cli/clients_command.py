"""`dspex clients`: show who is connected to a live supervisor."""

from __future__ import annotations

from .printed_units import size, span
from .printing import print_json, print_text
from .shared_options import command, target_options
from .tables import table
from .target import Target

HEADS = ("client", "role", "pid", "connected", "idle", "requests", "unread")


@command("clients", more="This command is one of them, as an operator.")
@target_options
def clients(target: Target, as_json: bool) -> None:
    """Print a line for each."""
    with target.connect() as client:
        rows = client.clients()
    if as_json:
        print_json(rows)
        return
    lines = [
        (
            row["client"],
            row["role"],
            str(row["pid"] or "-"),
            span(row["age_s"]),
            span(row["idle_s"]),
            str(row["requests"]),
            size(row["unread_bytes"]),
        )
        for row in rows
    ]
    print_text(table(HEADS, lines))
