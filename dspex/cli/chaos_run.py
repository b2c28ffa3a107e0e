"""`dspex bench --chaos`: run the scorecard, the same faults for this pool and its peers."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import UnknownName
from ..scorecard.card import REPEATS, Scorecard, load
from ..scorecard.report import block, document, noise, summary
from ..scorecard.scoring import Cell, Mark
from .command_refusal import refused
from .exit_codes import FAILED, OK
from .printing import print_json, print_line

OWN = "dspex"


def run_chaos(*, quick: bool, repeats: int | None, cases: Sequence[str], peers: Sequence[str], as_json: bool) -> int:
    """Run it and print each case as it is done; the exit code is 1 if this pool failed one.

    Raises:
        CommandRefusal: there is no such case or pool.
    """
    try:
        card = Scorecard.of(tuple(peers), tuple(cases), repeats or (1 if quick else REPEATS))
    except UnknownName as error:
        raise refused(error) from error
    before = load()
    cells: list[Cell] = []
    for case, row in card.rows():
        cells += row
        if not as_json:
            print_line(block(case, row) + "\n")
    loads = (before, load())
    if as_json:
        print_json(document(card, cells, loads))
    else:
        print_line(f"{summary(cells)}\n\n{noise(card, cells, loads)}")
    return FAILED if any(cell.peer == OWN and cell.mark in (Mark.FAILED, Mark.UNMEASURED) for cell in cells) else OK
