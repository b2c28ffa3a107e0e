"""`dspex health`: say whether each pool of a live supervisor can take a call now."""

from __future__ import annotations

from .printing import print_json, print_line
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
            print_line(f"{row['pool']}: {row['state']}{': ' + row['reason'] if row['reason'] else ''}")
    return exit_code(rows)
