"""Show objects in a notebook: tables whose every text is escaped, bounded in length. Pure."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

CELL_MOST = 2000  # characters of one cell
ROWS_MOST = 100
_STYLE = "text-align:left;vertical-align:top;white-space:pre-wrap"


def table(rows: Iterable[tuple[Any, Any]], *, title: str = "", note: str = "") -> str:
    """Return a table of names and values; what is too long, or too many, is cut and said to be."""
    shown = list(rows)
    cells = [f"<tr><th {_styled()}>{text(name)}</th><td {_styled()}>{text(value)}</td></tr>" for name, value in shown]
    return _framed(cells, title, note)


def grid(heads: Iterable[str], rows: Iterable[Iterable[Any]], *, title: str = "", note: str = "") -> str:
    """Return a table with a head and a line for each row."""
    head = "".join(f"<th {_styled()}>{text(name)}</th>" for name in heads)
    lines = ["".join(f"<td {_styled()}>{text(value)}</td>" for value in row) for row in rows]
    return _framed([f"<tr>{line}</tr>" for line in lines], title, note, head=f"<tr>{head}</tr>")


def text(value: Any) -> str:
    """Return a value as text that holds no markup, of at most `CELL_MOST` characters and a word on the rest."""
    whole = value if isinstance(value, str) else repr(value)
    rest = len(whole) - CELL_MOST
    cut = whole if rest <= 0 else f"{whole[:CELL_MOST]}... ({rest:,} more characters)"
    return html.escape(cut.encode("utf-8", "replace").decode(), quote=True)


def _framed(lines: list[str], title: str, note: str, head: str = "") -> str:
    rest = len(lines) - ROWS_MOST
    more = f"<div>{rest:,} more rows</div>" if rest > 0 else ""
    caption = f"<caption {_styled()}>{text(title)}</caption>" if title else ""
    below = f"<small>{text(note)}</small>" if note else ""
    return f"<div><table>{caption}{head}{''.join(lines[:ROWS_MOST])}</table>{more}{below}</div>"


def _styled() -> str:
    return f'style="{_STYLE}"'
