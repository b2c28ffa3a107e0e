"""Lay out rows and prose for the width there is: no word is broken, and what does not fit in a row is written below."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..terminal_text import inert_line
from .colors import STYLES, is_colored, line_width, painted

GAP = 2  # columns between cells
SENTENCE = 28  # columns that a sentence needs to be readable


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, indent: int = 0) -> str:
    """Return the rows below their heads; where they are too wide, each row as lines of "head value".

    A last column that holds sentences is folded in itself while there is room. Cells are untrusted text; those that
    name a state have its color.
    """
    rows = [[inert_line(cell) for cell in row] for row in rows]
    width = line_width()
    if width is None or _natural_width(heads, rows) + indent <= width:
        return _grid(heads, rows, indent, None)
    is_sentence = any(" " in row[-1] for row in rows)
    if is_sentence and _natural_width(heads[:-1], [row[:-1] for row in rows]) + indent + GAP + SENTENCE <= width:
        return _grid(heads, rows, indent, width - indent)
    return "\n".join(line for row in rows for line in _card(heads, row, width, indent))


def prose(text: str, *, indent: int = 0) -> str:
    """Return a line of text, folded between words where it is too wide; `indent` is that of the lines that follow."""
    width = line_width()
    if width is None:
        return text
    lines = text.split("\n")
    return "\n".join(_folded(line, width, len(line) - len(line.lstrip()) + indent) for line in lines)


def facts(rows: Mapping[str, str]) -> str:
    """Return names and values as two columns; long values are folded below themselves."""
    longest = max(map(len, rows), default=0)
    lines: list[str] = []
    for name, value in rows.items():
        text = prose(f"{name.ljust(longest)}  {inert_line(value)}", indent=longest + GAP)
        lines.append(painted(name, "bold") + text[len(name) :])
    return "\n".join(lines)


def _natural_width(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> int:
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(heads, *rows, strict=True)]
    return sum(widths) + GAP * (len(widths) - 1)


def _grid(heads: Sequence[str], rows: Iterable[Sequence[str]], indent: int, width: int | None) -> str:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold", show_edge=False)
    for head in heads:
        shown.add_column(Text(head), no_wrap=width is None or head != heads[-1])
    for row in rows:
        shown.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    out = io.StringIO()
    color = is_colored()
    console = Console(
        file=out,
        width=width or 10_000,
        color_system="standard" if color else None,
        force_terminal=color,
        legacy_windows=False,
    )
    console.print(shown)
    return "\n".join(f"{' ' * indent}{line.rstrip()}" for line in out.getvalue().splitlines())


def _card(heads: Sequence[str], row: Sequence[str], width: int, indent: int) -> Iterator[str]:
    """Yield a row as lines: the first cell, and the others with their heads, as many as fit."""
    from rich.cells import cell_len

    pad = " " * (indent + GAP)
    line, used = f"{' ' * indent}{painted(row[0], 'bold')}", indent + cell_len(row[0])
    for head, cell in zip(heads[1:], row[1:], strict=True):
        if not cell:
            continue
        needed = cell_len(head) + 1 + cell_len(cell)
        if used + GAP + needed > width and used > len(pad):
            yield line
            line, used = pad[:-GAP], len(pad) - GAP
        if len(pad) + needed > width and " " in cell:  # a sentence: folded, on lines of its own
            yield prose(f"{pad}{cell}")
            line, used = pad[:-GAP], len(pad) - GAP
            continue
        line += f"{' ' * GAP}{painted(head, 'dim')} {painted(cell)}"
        used += GAP + needed
    if line.strip():
        yield line


def _folded(line: str, width: int, indent: int) -> str:
    if len(line) <= width:
        return line
    return textwrap.fill(
        line,
        width,
        subsequent_indent=" " * min(indent, width // 2),
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
