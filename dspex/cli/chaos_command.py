"""`dspex bench --chaos`: run the scorecard, the same faults for this pool and its peers."""

from __future__ import annotations

import argparse
import sys

from ..errors import UnknownName
from ..scorecard.card import REPEATS, Scorecard, load
from ..scorecard.report import block, document, noise, summary
from ..scorecard.scoring import Cell, Mark
from .exit_codes import FAILED, OK, USAGE
from .target import print_json, print_line

OWN = "dspex"


def chaos(options: argparse.Namespace) -> int:
    """Run it and print each case as it is done; the exit code is 1 if this pool failed one."""
    repeats = options.repeats or (1 if options.quick else REPEATS)
    try:
        card = Scorecard.of(options.peers, options.cases, repeats)
    except UnknownName as error:
        sys.stderr.write(f"dspex: {error}\n")
        return USAGE
    before = load()
    cells: list[Cell] = []
    for case, row in card.rows():
        cells += row
        if not options.json:
            print_line(block(case, row) + "\n")
    loads = (before, load())
    if options.json:
        print_json(document(card, cells, loads))
    else:
        print_line(f"{summary(cells)}\n\n{noise(card, cells, loads)}")
    return FAILED if any(cell.peer == OWN and cell.mark in (Mark.FAILED, Mark.UNMEASURED) for cell in cells) else OK
