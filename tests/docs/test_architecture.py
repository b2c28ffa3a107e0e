"""Contract: the files that the page on the architecture names are there."""

from __future__ import annotations

import re

import pytest

from tests.support.docs.pages import DOCS, ROOT

PAGE = (DOCS / "internals" / "architecture.md").read_text(encoding="utf-8")
FULL = sorted(set(re.findall(r"`((?:dspex|workers|bridge_scripts)/[\w/]+\.py)`", PAGE)))
SHORT = sorted(set(re.findall(r"`((?!dspex/|workers/|bridge_scripts/|tests/)[\w/]+\.py)`", PAGE)))


@pytest.mark.parametrize("path", FULL)
def test_a_file_that_the_page_names_is_there(path: str) -> None:
    """contract"""
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("path", SHORT)
def test_a_file_that_the_page_names_beside_another_is_there(path: str) -> None:
    """contract: `codec.py` after `workers/dspex_worker/wire/messages.py` is in some package of ours."""
    places = [found for folder in ("dspex", "workers", "bridge_scripts") for found in (ROOT / folder).rglob(path)]
    assert places


def test_files_are_named_at_all() -> None:
    """contract"""
    assert len(FULL) > 40
    assert len(SHORT) > 15
