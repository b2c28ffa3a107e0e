"""The examples of docs/programs.md run as they stand there, one after the other."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

from dspex.testing import FakeLM

PAGE = Path(__file__).parents[2] / "docs" / "programs.md"


def _answer(messages: list[dict[str, Any]]) -> Any:
    asked = messages[-1]["content"]
    if "tool_calls" in asked:
        return {
            "answer": "looking",
            "tool_calls": {"tool_calls": [{"name": "search", "args": {"query": "DSPy", "k": 2}}]},
        }
    return {"reasoning": "r", "answer": "A framework." if "hint_" not in asked else "It is a framework."}


def test_the_pages_examples_run_and_print_what_they_should() -> None:
    """process: on the native route, which all of them take."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    printed = io.StringIO()
    with FakeLM(_answer) as lm, contextlib.redirect_stdout(printed):
        names: dict[str, Any] = {"lm": lm}
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), names)
    assert len(blocks) == 5
    assert printed.getvalue().splitlines() == [
        "A framework. native: everything it uses is in the native table",
        "A framework.",
        "A framework.",
        "A framework. DSPy is a framework.",
        "search ['DSPy', 'DSPy']",
    ]
