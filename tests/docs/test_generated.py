"""Contract: the pages that are made from the code are up to date, and the README's links and code work."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from types import ModuleType

import pytest

from tests.support.docs.pages import DOCS, ROOT, blocks_of

README = (ROOT / "README.md").read_text(encoding="utf-8")


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGES = _generator().PAGES


@pytest.mark.parametrize("page", PAGES)
def test_generated_page_is_up_to_date(page: str) -> None:
    """contract"""
    assert (DOCS / page).read_text(encoding="utf-8") == PAGES[page](), "run: python docs/generate.py"


def test_the_command_lines_page_lists_every_command_and_option() -> None:
    """contract: each in the section of its command."""
    from dspex.cli.command_group import commands

    page = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    assert {"start", "status", "call", "bench"} <= commands().keys()
    for name in commands():
        section = page.partition(f"### dspex {name}\n")[2].partition("\n### ")[0]
        assert section, name
    called = page.partition("### dspex call\n")[2].partition("\n### ")[0]
    assert all(option in called for option in ("--session", "--timeout", "--idempotent", "--stream", "POOL", "COMMAND"))


def test_every_page_that_the_readme_names_exists() -> None:
    """contract"""
    named = re.findall(r"\]\((docs/[^)#]+)[^)]*\)", README)
    assert len(named) > 10
    for page in named:
        assert (ROOT / page).is_file(), page


@pytest.mark.timeout(300)
def test_the_readmes_ten_lines_work_as_pasted() -> None:
    """process: the embedded model, both routes"""
    pytest.importorskip("xllamacpp", reason="the embedded model is not installed")
    section = README.partition("\n## Ten lines\n")[2]
    code = next(block.text for block in blocks_of("README.md", section) if block.language == "python")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    routes = re.findall(r" (native|python:dspy/\d+)$", done.stdout, re.MULTILINE)  # an answer may have several lines
    assert routes == ["native", "python:dspy/0"] or routes == ["native", "python:dspy/1"], done.stdout
