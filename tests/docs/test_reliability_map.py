"""Contract: docs/internals/reliability.md maps every promise, rule, fault and bug class to tests that exist."""

from __future__ import annotations

import ast
import re

import pytest

from tests.support.paths import ROOT

TESTS = ROOT / "tests"
PAGE = ROOT / "docs" / "internals" / "reliability.md"
TEST = re.compile(r"`([\w/]+)::(\w+)`")

EXPECTED = {
    "What callers get": [f"D{n}" for n in range(1, 17)],
    "The call path": [f"C{n}" for n in range(1, 8)] + ["C7b"] + [f"C{n}" for n in range(8, 16)],
    "Fork server, lifeline, reaping": [f"T{n}" for n in range(1, 9)],
    "Cancellation": [f"K{n}" for n in range(6)],
    "Sessions": [f"S{n}" for n in range(1, 10)],
    "Injected faults": [str(n) for n in range(1, 41)],
    "Bug classes of pools like this one": [f"T{n:02}" for n in range(1, 77)],
}


def _rows(title: str) -> dict[str, str]:
    """The table under a heading: id -> the rest of its row."""
    section = PAGE.read_text().partition(f"### {title}\n")[2].partition("\n#")[0]
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return {cells[0].strip(): "|".join(cells[1:]) for cells in lines[2:]}


@pytest.mark.parametrize("title", EXPECTED)
def test_every_id_has_a_line(title: str) -> None:
    """contract: none is missing, none is there that nobody knows, and they are in order."""
    assert list(_rows(title)) == EXPECTED[title]


@pytest.mark.parametrize("title", EXPECTED)
def test_every_line_names_a_test_or_says_why_there_is_none(title: str) -> None:
    """contract: a line without a test has a sentence instead."""
    for id, row in _rows(title).items():
        last = row.rstrip(" |").rpartition(" | ")[2]
        assert TEST.search(row) or len(last) > 40, id


def test_every_named_test_exists() -> None:
    """contract: file and function, so that renaming one without the page fails."""
    known: dict[str, set[str]] = {}
    missing = []
    for file, function in TEST.findall(PAGE.read_text()):
        if file not in known:
            path = TESTS / f"{file}.py"
            tree = ast.parse(path.read_text()) if path.is_file() else ast.Module([], [])
            known[file] = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        if function not in known[file]:
            missing.append(f"{file}::{function}")
    assert missing == []
    assert len(known) > 20


def test_the_ids_of_fault_cases_in_tests_are_known() -> None:
    """contract: a docstring that cites `scorecard n` cites a case of the page."""
    cited = set()
    for path in TESTS.rglob("test_*.py"):
        for case in re.findall(r"scorecard ([\d, ]+)", path.read_text()):
            cited.update(number.strip() for number in case.split(",") if number.strip())
    assert cited <= set(EXPECTED["Injected faults"])
