"""Contract: the source files and folders that the pages of Internals name are in the repository."""

from __future__ import annotations

import re

import pytest

from tests.support.docs.pages import DOCS, ROOT, names

PAGES = [name for name in names() if name.startswith("internals/")]
FOLDERS = ("benchmarks", "bridge_scripts", "docs", "dspex", "examples", "tests", "workers")
FILES = [f"/{path.relative_to(ROOT)}" for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
FILE = re.compile(r"(?<![\w./-])((?:[\w-]+/)*[\w-]+\.py)\b")
FOLDER = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[\w/]*)`")
OF_DSPY = re.compile(r"^## tests/.*$", re.MULTILINE)  # headings that name files of DSPy's own tests


def text_of(page: str) -> str:
    return OF_DSPY.sub("", (DOCS / page).read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES)
def test_a_file_that_a_page_names_is_there(page: str) -> None:
    """contract: in full, or by the end of its path, such as `codec.py` or `wire/codec.py`."""
    named = set(FILE.findall(text_of(page)))
    assert sorted(path for path in named if not any(file.endswith(f"/{path}") for file in FILES)) == []


@pytest.mark.parametrize("page", PAGES)
def test_a_folder_that_a_page_names_is_there(page: str) -> None:
    """contract: `dspex/lm/http`, with or without the last stroke."""
    assert sorted(path for path in set(FOLDER.findall(text_of(page))) if not (ROOT / path).is_dir()) == []


def test_files_are_named_at_all() -> None:
    """contract: the patterns find something."""
    assert len(set(FILE.findall(text_of("internals/architecture.md")))) > 60
    assert len(set(FOLDER.findall(text_of("internals/architecture.md")))) > 10
