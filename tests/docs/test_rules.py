"""Contract: every rule that the source or the tests cite can be looked up in the documentation."""

from __future__ import annotations

import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.docs.pages import DOCS, ROOT

FOLDERS = ("dspex", "workers", "bridge_scripts", "tests")
CODE = re.compile(r"(?<![\w.#-])([CKSPIX]\d{1,2}[a-z]?|T\d{1,2}[a-z]?)(?![\w-])")
SECTION = re.compile(r"DESIGN,? §?(\d)")
TEXTS = (tokenize.COMMENT, tokenize.STRING)


def cited(path: Path, pattern: re.Pattern[str]) -> Iterator[str]:
    """What the comments and docstrings of a file cite."""
    with tokenize.open(path) as source:
        for token in tokenize.generate_tokens(source.readline):
            if token.type == tokenize.COMMENT or token.string.lstrip("rbfuRBFU").startswith('"""'):
                yield from pattern.findall(token.string)


def files() -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def entries() -> set[str]:
    """The first cells of the tables of rules, and of the bug classes."""
    rules = (DOCS / "internals" / "rules.md").read_text(encoding="utf-8")
    reliability = (DOCS / "internals" / "reliability.md").read_text(encoding="utf-8")
    bugs = re.findall(r"^\| (T\d\d) \|", reliability, re.MULTILINE)
    return {*re.findall(r"^\| ([CTKSPIX]\d{1,2}[a-z]?) \|", rules, re.MULTILINE), *bugs}


def test_every_cited_rule_has_an_entry() -> None:
    """contract: whoever reads `(C13)` finds out what it demands."""
    known = entries()
    found = {(code, str(path.relative_to(ROOT))) for path in files() for code in cited(path, CODE)}
    assert len({code for code, _ in found}) > 60  # they are found at all
    assert sorted((code, path) for code, path in found if code not in known) == []


def test_every_cited_section_has_an_entry() -> None:
    """contract: `DESIGN §6` too."""
    rules = (DOCS / "internals" / "rules.md").read_text(encoding="utf-8")
    found = {section for path in files() for section in cited(path, SECTION)}
    assert found
    assert found <= set(re.findall(r"^\| §(\d) \|", rules, re.MULTILINE))


@pytest.mark.parametrize("group, last", [("C", 15), ("T", 8), ("K", 5), ("S", 9), ("P", 9), ("I", 7), ("X", 9)])
def test_no_rule_is_left_out(group: str, last: int) -> None:
    """contract: the numbers of a group have no gap."""
    first = 0 if group == "K" else 1
    assert {f"{group}{number}" for number in range(first, last + 1)} <= entries()
