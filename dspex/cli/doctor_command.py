"""`dspex doctor`: check this machine and these settings; a line for each check, a remedy for each fault."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import click

from ..terminal_text import inert
from .check_result import Check
from .colors import STYLES, painted
from .doctor_checks import checks
from .exit_codes import FAILED, OK
from .printing import print_json, print_line, print_text
from .shared_options import command
from .tables import prose

_MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


@command("doctor")
@click.option("--config", metavar="FILE", type=click.Path(), help="Settings file to check (default: $DSPEX_CONFIG).")
@click.option("--quick", is_flag=True, help="Leave out what imports DSPy (seconds).")
def doctor(config: str | None, quick: bool, as_json: bool) -> int:
    """Run every check; the exit code is 1 if one fails."""
    results: list[Check] = []
    for check in checks(config, is_quick=quick):
        results.append(check)
        if not as_json:
            mark = painted(_MARKS[check.state], STYLES[check.state])
            print_text(mark + prose(f"....  {inert(check.name)}: {inert(check.detail)}", indent=6)[4:])
            if check.state != "ok" and check.remedy:
                print_text(prose(f"      -> {inert(check.remedy)}", indent=3))
    counts = Counter(check.state for check in results)
    if as_json:
        print_json({"checks": [asdict(check) for check in results], "counts": dict(counts)})
    else:
        print_line(f"{counts['ok']} ok, {counts['warn']} warnings, {counts['fail']} failures")
    return FAILED if counts["fail"] else OK
