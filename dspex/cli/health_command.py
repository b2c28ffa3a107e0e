"""`dspex health`: say whether each pool of a live supervisor can take a call now."""

from __future__ import annotations

from ..terminal_text import inert_line
from .colors import painted
from .printing import print_json, print_text
from .shared_options import command, target_options
from .status_command import exit_code
from .target import Target


@command("health")
@target_options
def health(target: Target, as_json: bool) -> int:
    """Print a line for each pool."""
    with target.connect() as client:
        rows = client.health()
    if as_json:
        print_json(rows)
    else:
        for row in rows.values():
            why = f": {row['reason']}" if row["reason"] else ""
            print_text(f"{painted(row['pool'])}: {painted(row['state'])}{inert_line(why)}")
    return exit_code(rows)
