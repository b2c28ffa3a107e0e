"""`dspex doctor`: check this machine and these settings; a line for each check, a remedy for each fault."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict

from .check_result import Check
from .doctor_checks import checks
from .exit_codes import FAILED, OK
from .target import print_json, print_line

_MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


def doctor(options: argparse.Namespace) -> int:
    """Run every check; the exit code is 1 if one fails."""
    results: list[Check] = []
    for check in checks(options.config, is_quick=options.quick):
        results.append(check)
        if not options.json:
            print_line(f"{_MARKS[check.state]}  {check.name}: {check.detail}")
            if check.state != "ok" and check.remedy:
                print_line(f"      -> {check.remedy}")
    counts = Counter(check.state for check in results)
    if options.json:
        print_json({"checks": [asdict(check) for check in results], "counts": dict(counts)})
    else:
        print_line(f"{counts['ok']} ok, {counts['warn']} warnings, {counts['fail']} failures")
    return FAILED if counts["fail"] else OK
