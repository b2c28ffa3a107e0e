"""Contract: docs/internals/upstream-cases.md names only tests that exist, and counts what it lists."""

from __future__ import annotations

import ast
import re
from collections import Counter

from tests.support.parity.claimed_routes import ROW, claims
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "internals" / "upstream-cases.md").read_text(encoding="utf-8")
ROWS = ROW.findall(PAGE)
NAMED = set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)(?:\[([^\]]+)\])?`", PAGE))


def test_every_test_that_the_table_names_exists() -> None:
    """contract: function by function, and case by case where a test has several."""
    assert len(NAMED) > 60
    for path, function, case in sorted(NAMED):
        source = (ROOT / path).read_text(encoding="utf-8")
        tree = ast.parse(source)
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert function in functions, f"{path}::{function}"
        texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        assert not case or case in texts, f"{path}::{function}[{case}]"


def test_every_row_has_a_test_or_a_reason() -> None:
    """contract: nothing is left open, and the numbers in the text are those of the rows."""
    counts = Counter(verdict for _, verdict, _ in ROWS)
    for _, verdict, why in ROWS:
        assert ("::" in why) if verdict != "not applicable" else len(why) > 20
    said = re.search(r"(\d+) cases: (\d+) pass natively, (\d+) run in a worker, (\d+) are not applicable", PAGE)
    assert said is not None
    assert tuple(map(int, said.groups())) == (
        len(ROWS),
        counts["native"],
        counts["worker"],
        counts["not applicable"],
    )


def test_every_test_takes_one_route() -> None:
    """contract: no test is named for both routes, and all run where their routes are looked at."""
    for (path, function, case), routes in claims().items():
        assert len(routes) == 1, f"{path}::{function}[{case}] is claimed for both routes"
        assert path.startswith(("tests/parity/", "tests/process/programs/", "tests/unit/")), path


def test_sections_count_their_rows() -> None:
    """contract: the numbers in each heading are those of its rows."""
    for section in re.split(r"(?m)^(?=## )", PAGE)[1:]:
        counts = Counter(route for _, route, _ in ROW.findall(section))
        said = re.search(r"(\d+) cases \((\d+) native, (\d+) in a worker, (\d+) not applicable\)", section)
        assert said is not None, section[:80]
        wanted = (counts["native"], counts["worker"], counts["not applicable"])
        assert tuple(map(int, said.groups())) == (sum(wanted), *wanted), section[:80]
