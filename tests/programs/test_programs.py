"""Every case of `inside/`: a function there whose name begins with `test_` runs in the child as a test of its own."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

CASES = [
    (path.stem, node.name)
    for path in sorted((Path(__file__).parent / "inside").glob("cases_*.py"))
    for node in ast.parse(path.read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
]


@pytest.mark.parametrize(("module", "name"), CASES, ids=[f"{module}-{name}" for module, name in CASES])
def test_inside_a_worker(inside: Callable[[str, str], None], module: str, name: str) -> None:
    """process: the case holds in a process that is set up as a worker."""
    inside(module, name)
