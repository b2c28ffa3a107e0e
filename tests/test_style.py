"""Contract: one style over the whole tree, where ruff has no rule for it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"dspex": ROOT / "dspex", "dspex_worker": ROOT / "workers" / "dspex_worker"}
SOURCES = [path for folder in (*PACKAGES.values(), ROOT / "bridge_scripts") for path in sorted(folder.rglob("*.py"))]
INLINE_RAISES = re.compile(r"\bRaises:[ \t]+\S")
BRITISH = re.compile(
    r"\b\w*(?:optimis|behaviour|colour|honour|serialis|normalis|organis|recognis|initialis|summaris|synchronis|"
    r"daemonis|tokenis|minimis|maximis)\w*",
    re.IGNORECASE,
)
PRIVATE = re.compile(
    r"\b(?:desk|crew|nursery|holdings|roster|vigil|undertaker|burial|bury|buries|buried|reverse calls?|"
    r"acquit\w*|condemn\w*|fruitless|fruitful|excus(?:e|es|ed)|allowances?)\b",
    re.IGNORECASE,
)


def _id(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=_id)
def test_a_source_keeps_the_style(path: Path) -> None:
    """contract: relative imports within a package, block Raises, American spelling, the field's words."""
    text = path.read_text(encoding="utf-8")
    assert list(_absolute_imports(path, text)) == []
    assert [doc for doc in _docstrings(text) if INLINE_RAISES.search(doc)] == []
    assert BRITISH.findall(text) == []
    assert PRIVATE.findall(text) == []


def _absolute_imports(path: Path, text: str) -> Iterator[str]:
    own = next((name for name, folder in PACKAGES.items() if path.is_relative_to(folder)), None)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == own:
            yield f"line {node.lineno}: from {node.module}"


def _docstrings(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
