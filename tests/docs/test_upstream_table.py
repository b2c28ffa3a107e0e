"""Contract: docs/internals/upstream-cases.md names only tests that exist, and counts what it lists."""

from __future__ import annotations

import ast
import re
from collections import Counter

from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "internals" / "upstream-cases.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(test_\w+)` \| (passes|worker|not applicable) \| (.+) \|$", PAGE, re.MULTILINE)
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
        counts["passes"],
        counts["worker"],
        counts["not applicable"],
    )
