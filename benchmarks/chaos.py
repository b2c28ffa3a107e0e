"""The scorecard of `dspex bench --chaos` as tables: `python -m benchmarks chaos`. What it does is in the package."""

from __future__ import annotations

import sys

from benchmarks.report import Row
from dspex.scorecard.card import REPEATS, Scorecard, load
from dspex.scorecard.report import block, noise
from dspex.scorecard.scoring import Cell, Mark


def run(*, quick: bool = False) -> dict[str, list[Row]]:
    """A row for each fault, a column for each pool."""
    card = Scorecard(repeats=1 if quick else REPEATS)
    before = load()
    cells: list[Cell] = []
    rows: list[Row] = []
    for case, row in card.rows():
        cells += row
        rows.append({"fault": case.title, **{cell.peer: _cell(cell) for cell in row}})
        print(block(case, row), file=sys.stderr, flush=True)
    versions = ", ".join(f"{name} {version}".strip() for name, version in card.versions().items())
    return {f"Faults: {versions}. {noise(card, cells, (before, load()))}": rows}


def _cell(cell: Cell) -> str:
    return cell.text if cell.mark in (Mark.LACKS, Mark.ABSENT) else f"**{cell.mark}**: {cell.text}"
