"""Unit: rows and prose for the width there is, and colors where they are wanted."""

from __future__ import annotations

import io
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex.cli.colors import is_colored, painted
from dspex.cli.shell_command import Said
from dspex.cli.tables import prose, table

HEADS = ("worker", "phase", "answered", "what it does")
ROW = ("dspy/0", "ready", "1,234", "-")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


def test_a_table_that_fits_is_a_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: and in a pipe it always fits"""
    grid = "worker  phase  answered  what it does\ndspy/0  ready  1,234     -"
    assert table(HEADS, [ROW]) == grid
    monkeypatch.setenv("COLUMNS", "38")
    assert table(HEADS, [ROW]) == grid


def test_a_row_that_is_too_wide_becomes_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit"""
    monkeypatch.setenv("COLUMNS", "30")
    assert table(HEADS, [ROW], indent=1) == " dspy/0  phase ready\n   answered 1,234\n   what it does -"


def test_a_width_that_readline_left_behind_is_nobodys_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: it sets both variables for whatever a Python process runs"""
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("LINES", "24")
    assert len(table(HEADS, [ROW]).splitlines()) == 2


words = st.text(st.characters(codec="ascii", categories=["Lu", "Ll", "Nd"]), min_size=1, max_size=12)
lines = st.lists(st.tuples(words, words, words, st.lists(words, max_size=12).map(" ".join)), min_size=1, max_size=4)


@given(rows=lines, width=st.integers(28, 120))
def test_no_word_is_broken_and_no_line_too_wide(rows: list[tuple[str, ...]], width: int) -> None:
    """unit: whatever is in the cells, and however narrow it is"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        patch.delenv("LINES", raising=False)
        text = table(HEADS, rows)
    assert max(map(len, text.splitlines())) <= width
    shown = text.split()
    for row in rows:
        for word in " ".join(row).split():
            assert word in shown


def test_prose_is_folded_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit"""
    monkeypatch.setenv("COLUMNS", "20")
    assert prose("pool f: 2/2 workers, 0 running", indent=2) == "pool f: 2/2 workers,\n  0 running"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("on_terminal", "environ", "option", "is_wanted"),
    [
        (True, {}, "auto", True),
        (False, {}, "auto", False),
        (True, {"NO_COLOR": "1"}, "auto", False),
        (True, {"NO_COLOR": ""}, "auto", True),
        (False, {"FORCE_COLOR": "1"}, "auto", True),
        (False, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, "auto", False),
        (True, {"TERM": "dumb"}, "auto", False),
        (True, {"NO_COLOR": "1"}, "always", True),
        (True, {"FORCE_COLOR": "1"}, "never", False),
    ],
)
def test_who_decides_about_color(
    on_terminal: bool, environ: dict[str, str], option: str, is_wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """unit: the option, then NO_COLOR, then FORCE_COLOR, then the terminal"""
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", Terminal() if on_terminal else io.StringIO())
    monkeypatch.setattr("dspex.cli.colors.said_of", lambda: Said(color=option))
    assert is_colored() is is_wanted
    assert (painted("ready") != "ready") is is_wanted
    assert ("\x1b[" in table(HEADS, [ROW])) is is_wanted


def test_words_of_others_color_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: neither escapes nor markup in a cell do anything"""
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = table(("a", "b"), [("\x1b[31mred\x1b]0;title\x07", "[bold]x[/bold]\nsecond")])
    assert re.findall("\x1b[^m]*m", text.splitlines()[1]) == []
    assert "\\x1b[31mred" in text and "[bold]x[/bold]\\nsecond" in text
