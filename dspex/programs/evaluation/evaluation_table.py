"""Show an evaluation's rows: as a DataFrame, and as HTML for notebooks."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from ...errors import MissingDependency
from .evaluation_row import EvaluationRow, fields_of

SHOWN_ROWS = 20
SHOWN_CHARS = 200


def as_frame(rows: Sequence[EvaluationRow]) -> Any:
    """Return the rows as a DataFrame.

    Raises:
        MissingDependency: pandas is not installed.
    """
    try:
        import pandas  # type: ignore[import-untyped]  # pyright: ignore[reportMissingImports] - an optional package
    except ImportError as error:
        raise MissingDependency("to_pandas needs pandas: pip install pandas.", package="pandas") from error
    return pandas.DataFrame([_cells(row) for row in rows], index=[row.index for row in rows])


def as_html(title: str, rows: Sequence[EvaluationRow]) -> str:
    """Return a table of the first rows; all that came of a model is escaped."""
    cells = [_cells(row) for row in rows[:SHOWN_ROWS]]
    names = list(dict.fromkeys(name for each in cells for name in each))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(_shown(each.get(name)) for name in names)}</tr>" for each in cells)
    more = len(rows) - len(cells)
    foot = f"<p>and {more} more rows</p>" if more else ""
    return f"<p>{html.escape(title)}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{foot}"


def _cells(row: EvaluationRow) -> dict[str, Any]:
    example, made = fields_of(row.example), {} if row.prediction is None else fields_of(row.prediction)
    cells = {(f"example_{name}" if name in made else name): value for name, value in example.items()}
    cells |= {(f"pred_{name}" if name in example else name): value for name, value in made.items()}
    error = None if row.error is None else f"{type(row.error).__name__}: {row.error}"
    return {**cells, "score": row.score, "error": error, "seconds": round(row.seconds, 4), "route": row.route}


def _shown(value: Any) -> str:
    text = "" if value is None else str(value)
    text = text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}..."
    return f"<td>{html.escape(text)}</td>"
