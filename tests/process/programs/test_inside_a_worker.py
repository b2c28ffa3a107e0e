"""Process: each `test_` function of `tests/support/worker_cases` runs in a process that is set up as a worker."""

from __future__ import annotations

import ast
from collections.abc import Callable

import pytest

from tests.support.paths import ROOT

CASES = [
    (path.stem, node.name)
    for path in sorted((ROOT / "tests/support/worker_cases").glob("cases_*.py"))
    for node in ast.parse(path.read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
]


@pytest.mark.parametrize(("module", "name"), CASES, ids=[f"{module}-{name}" for module, name in CASES])
def test_inside_a_worker(inside: Callable[[str, str], None], module: str, name: str) -> None:
    """process: the case holds in a process that is set up as a worker."""
    inside(module, name)
