"""Compare DSPex with DSPy on random cases: `python -m tests.support.parity.run [--checks 100000] [--seed 7]`.

A check is one comparison: a list of messages, a response format, a parsed answer, the outcome of a whole `Predict`
call, one request's body, or a signature. The cases are shared out in parts of 5,000 checks to processes, each with a
DSPy process of its own; part k draws from "seed/k", so a run is repeated by its seed and its number of checks. With
`--progress FILE` each part that is done is a line of that file, and a run that was stopped goes on from there. Exit
code 1 on any difference.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from tests.support.parity.adapter_cases import RARE, AdapterCases
from tests.support.parity.cases import Cases
from tests.support.parity.comparison import Report
from tests.support.parity.native_side import native_results
from tests.support.parity.oracle import Oracle

BATCH = 40
PART = 5_000  # checks


def compared(oracle: Oracle, seed: int | str, checks: int, adapters: Sequence[str] = ()) -> Report:
    """Compare cases of this seed until so many checks were made; `adapters` are of the rarer ones."""
    report = Report()
    supply = iter(AdapterCases(seed, adapters) if adapters else Cases(seed))
    ahead = list(islice(supply, BATCH))
    oracle.give(ahead)
    while report.total < checks:
        cases, ahead = ahead, list(islice(supply, BATCH))
        natives = [native_results(case) for case in cases]
        dspys = oracle.take()
        oracle.give(ahead)  # DSPy works on these while this side draws, compares and works on its own
        for case, native, dspy in zip(cases, natives, dspys, strict=True):
            report.add(case, native, dspy)
    oracle.take()
    return report


def _part(arguments: tuple[str, int, Sequence[str]]) -> tuple[str, Report]:
    logging.disable(logging.CRITICAL)
    oracle = Oracle()
    try:
        return arguments[0], compared(oracle, *arguments)
    finally:
        oracle.close()


def run(seed: int, checks: int, processes: int, progress: Path | None = None, adapters: Sequence[str] = ()) -> Report:
    """Compare in several processes at once; parts that `progress` has are not made again."""
    parts = {f"{seed}/{at}": min(PART, checks - at * PART) for at in range(-(-checks // PART))}
    done = _done(progress)
    whole = Report()
    for part in parts.keys() & done.keys():
        whole.merge(done[part])
    left = [(part, count, adapters) for part, count in parts.items() if part not in done]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for part, report in pool.imap_unordered(_part, left):
            whole.merge(report)
            if progress:
                with progress.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([part, report.to_json()]) + "\n")
    return whole


def _done(progress: Path | None) -> dict[str, Report]:
    if progress is None or not progress.exists():
        return {}
    lines = progress.read_text(encoding="utf-8").splitlines()
    return {part: Report.from_json(data) for part, data in map(json.loads, lines)}


def _printed(report: Report, seed: int, seconds: float, shown: int) -> None:
    print(f"{report.total} checks in {seconds:.0f} s, seed {seed}: {len(report.differences)} differences")
    for what, count in report.comparisons.most_common():
        print(f"  {count:8} {what}")
    print(f"  {report.errors.total():8} of them errors, class by class")
    for (point, theirs, ours), count in sorted(report.errors.items()):
        print(f"  {count:8}   {point}: {theirs} -> {ours}")
    print(f"  {report.routed.total():8} not compared, because a worker would be asked")
    for reason, count in report.routed.most_common():
        print(f"  {count:8}   {reason}")
    print(f"  {report.rules.total():8} signature strings on which the two differ by a documented rule")
    for rule, count in report.rules.most_common():
        print(f"  {count:8}   {rule}")
    for difference in report.differences[:shown]:
        print(f"\nDIFFERENCE {difference}")


def main(arguments: Any = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checks", type=int, default=int(os.environ.get("DSPEX_PARITY_CHECKS", "100000")))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("DSPEX_PARITY_SEED", "0")) or None)
    parser.add_argument("--shown", type=int, default=5, help="how many differences are printed")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--adapters", nargs="*", default=(), choices=RARE, help="in place of chat and json")
    parser.add_argument("--progress", type=Path, help="a file of the parts that are done")
    given = parser.parse_args(arguments)
    seed = given.seed or random.SystemRandom().randrange(1, 10**9)
    print(f"seed {seed}, {given.checks} checks, {given.processes} processes", flush=True)
    begun = time.monotonic()
    report = run(seed, given.checks, given.processes, given.progress, given.adapters)
    _printed(report, seed, time.monotonic() - begun, given.shown)
    return 1 if report.differences else 0


if __name__ == "__main__":
    sys.exit(main())
