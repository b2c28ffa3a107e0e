"""Contract: what users read is in the field's words: no rule codes, no private words, American spelling."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.docs.pages import DOCS, ROOT, user_pages

CODES = re.compile(r"\bRULES\b|\bDESIGN §|\([CTKSPIX]\d{1,2}[a-z]?(?:, ?[CTKSPIX]\d{1,2}[a-z]?)*\)|\brule [CTKSPIX]\d")
PRIVATE = re.compile(
    r"\bthe (?:seed|house)\b|\bhouse's\b|\bwhose move\b|\b(?:desk|crew|nursery|vigil|holdings|roster|undertaker)\b",
    re.IGNORECASE,
)
BRITISH = re.compile(
    r"\b\w*(?:optimis|behaviour|neighbour|colour|licence|summaris|organis|recognis|serialis|normalis)\w*", re.IGNORECASE
)
SOURCES = [path for folder in ("dspex", "workers", "bridge_scripts") for path in sorted((ROOT / folder).rglob("*.py"))]


def found(text: str, *patterns: re.Pattern[str]) -> list[str]:
    return [match[0] for pattern in patterns for match in pattern.finditer(text)]


@pytest.mark.parametrize("page", ["../README.md", *user_pages()])
def test_a_page_speaks_to_its_reader(page: str) -> None:
    """contract: the README, and every page but Internals, the generated ones too."""
    assert found((DOCS / page).read_text(encoding="utf-8"), CODES, PRIVATE, BRITISH) == []


def test_messages_hold_no_codes_and_no_private_words() -> None:
    """contract: every string of the source that is no docstring: error messages, log lines, help."""
    strings = [(str(path.relative_to(ROOT)), text) for path in SOURCES for text in messages(path)]
    assert len(strings) > 3000
    assert [(path, hits) for path, text in strings if (hits := found(text, CODES, PRIVATE))] == []


def test_docstrings_of_the_api_hold_no_codes_and_no_private_words() -> None:
    """contract: of everything that the reference shows."""
    griffe = pytest.importorskip("griffe", reason="the docs extra is not installed")
    texts = dict(shown_docstrings(griffe.load))
    assert len(texts) > 100
    assert {name: hits for name, text in texts.items() if (hits := found(text, CODES, PRIVATE, BRITISH))} == {}


def messages(path: Path) -> Iterator[str]:
    """The string constants of a file but its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {id(node.body[0].value) for node in ast.walk(tree) if is_documented(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def is_documented(node: Any) -> bool:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return isinstance(node, kinds) and bool(node.body) and isinstance(node.body[0], ast.Expr)


def shown_docstrings(load: Any) -> Iterator[tuple[str, str]]:
    """The docstrings of the objects that the pages of the API show, and of the members that they show of them."""
    modules: dict[str, Any] = {}
    for page in sorted((DOCS / "reference" / "api").glob("*.md")):
        for name, options in re.findall(
            r"^::: ([\w.]+)\n((?: +.*\n)*)", page.read_text(encoding="utf-8"), re.MULTILINE
        ):
            package = name.split(".")[0]
            if package not in modules:
                modules[package] = load(package, search_paths=[str(ROOT), str(ROOT / "workers")])
            listed = re.search(r"members: \[(.*)\]", options)
            members = listed[1].split(", ") if listed else None
            yield from docstrings_of(name, modules[package][name.partition(".")[2]], members)


def docstrings_of(name: str, item: Any, members: list[str] | None) -> Iterator[tuple[str, str]]:
    target = item.final_target if item.is_alias else item
    if target.docstring is not None:
        yield name, inspect.cleandoc(target.docstring.value)
    for member in target.members.values() if target.is_class else ():
        is_shown = not member.name.startswith("_") if members is None else member.name in members
        if is_shown and not member.is_alias:
            yield from docstrings_of(f"{name}.{member.name}", member, None)
