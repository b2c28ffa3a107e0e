"""Process: the shell sessions that the guide to the command line shows are what the commands print."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from tests.support.docs.pages import DOCS


def _writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("shell_session", DOCS / "shell_session.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WRITER = _writer()
PAGE = (DOCS / "guides" / "command-line.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", WRITER.WIDTHS)
def test_a_session_is_still_what_the_page_shows(width: int) -> None:
    """process: from `dspex init` to `dspex stop`; words and their order, not numbers"""
    now, shown = WRITER.session(width), WRITER.shown_in(PAGE)[width]
    assert WRITER.shape(now) == WRITER.shape(shown), "run: python docs/shell_session.py"


def test_no_line_is_wider_than_the_terminal() -> None:
    """contract: but for words that are themselves, and the commands that were typed"""
    for width, text in WRITER.shown_in(PAGE).items():
        wide = [line for line in text.splitlines() if len(line) > width and not line.startswith("$ ")]
        assert [line for line in wide if len(line.split()) > 1] == []
