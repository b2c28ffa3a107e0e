"""`dspex doctor`: check this machine and these settings; a line for each check, a remedy for each fault."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import click

from .check_result import Check
from .doctor_checks import checks
from .exit_codes import FAILED, OK
from .printing import print_json, print_line
from .shared_options import command

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
            print_line(f"{_MARKS[check.state]}  {check.name}: {check.detail}")
            if check.state != "ok" and check.remedy:
                print_line(f"      -> {check.remedy}")
    counts = Counter(check.state for check in results)
    if as_json:
        print_json({"checks": [asdict(check) for check in results], "counts": dict(counts)})
    else:
        print_line(f"{counts['ok']} ok, {counts['warn']} warnings, {counts['fail']} failures")
    return FAILED if counts["fail"] else OK
