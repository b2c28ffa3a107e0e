"""Decide about color and width, and paint words: $NO_COLOR, $FORCE_COLOR, $COLUMNS and --color are heeded."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TextIO

from ..terminal_text import inert_line
from .shell_command import said_of

STYLES = {
    "ready": "green",
    "running": "green",
    "done": "green",
    "ok": "green",
    "idle": "green",
    "starting": "yellow",
    "queued": "yellow",
    "retiring": "yellow",
    "draining": "yellow",
    "warn": "yellow",
    "stopped": "yellow",
    "degraded": "red",
    "closed": "red",
    "failed": "red",
    "damaged": "red",
    "fail": "red",
    "not running": "red",
    "stuck": "red",
}  # of states


def is_colored(stream: TextIO | None = None) -> bool:
    """Return whether to color what goes to standard output, or to this stream."""
    wanted = said_of().color
    if wanted != "auto":
        return wanted == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"


def is_terminal(stream: TextIO | None = None) -> bool:
    """Return whether a person reads standard output, or this stream, on a terminal."""
    stream = stream or sys.stdout
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # it is closed
        return False


def line_width() -> int | None:
    """Return how many columns a line may have: $COLUMNS, else those of the terminal; None for a file or a pipe."""
    if is_terminal():
        return max(20, shutil.get_terminal_size().columns)
    said = os.environ.get("COLUMNS", "")
    # A Python process that has readline gives both variables to the programs that it runs: nobody has asked for them.
    is_asked = said.isdecimal() and int(said) > 0 and "LINES" not in os.environ
    return max(20, int(said)) if is_asked else None


def painted(text: str, style: str | None = None) -> str:
    """Return the text on one line, inert, and in a style of `rich` or in that of the state that it names."""
    text = inert_line(text)
    style = STYLES.get(text) if style is None else style
    if not style or not is_colored():
        return text
    import click

    words = style.split()
    color = next((word for word in words if word not in ("bold", "dim")), None)
    return click.style(text, fg=color, bold="bold" in words or None, dim="dim" in words or None)
