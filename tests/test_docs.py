"""Contract: the pages that are made from the code are up to date, and the README's code works as pasted."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["settings.md", "events.md", "errors.md", "routes.md"])
def test_generated_page_is_up_to_date(page: str) -> None:
    """contract"""
    made = _generator().PAGES[page]()
    assert (ROOT / "docs" / page).read_text(encoding="utf-8") == made, "run: python docs/generate.py"


def test_every_page_that_the_readme_names_exists() -> None:
    """contract"""
    for page in re.findall(r"\]\((docs/[^)]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / page).is_file(), page


@pytest.mark.timeout(300)
def test_the_readmes_ten_lines_work_as_pasted() -> None:
    """process: the embedded model, both routes"""
    pytest.importorskip("xllamacpp", reason="the embedded model is not installed")
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    routes = re.findall(r" (native|python:dspy/\d+)$", done.stdout, re.MULTILINE)  # an answer may have several lines
    assert routes == ["native", "python:dspy/0"] or routes == ["native", "python:dspy/1"], done.stdout
