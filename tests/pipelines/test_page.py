"""The examples of docs/pipelines.md run as they stand there, one after the other."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

from dspex import defaults
from dspex.config import PoolConfig
from dspex.pools.supervisor import Supervisor
from dspex.testing import FakeLM

PAGE = Path(__file__).parents[2] / "docs" / "pipelines.md"
SAID = {
    "answer": {"reasoning": "r", "answer": "a framework"},
    "refined_queries": {"reasoning": "narrower", "refined_queries": "dspy framework"},
    "search_queries": {"search_queries": ["dspy"]},
}


@pytest.fixture(autouse=True)
def _leaves_nothing() -> None:
    """The process's LM client keeps its connections."""


def _answer(messages: list[dict[str, Any]]) -> Any:
    asked = messages[0]["content"]
    return next(reply for field, reply in SAID.items() if f"[[ ## {field} ## ]]\n{{{field}}}" in asked)


def test_the_pages_examples_run_and_print_what_they_should() -> None:
    """process"""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    printed = io.StringIO()
    with FakeLM(_answer) as lm, Supervisor(pools=[PoolConfig("dspy", size=1, stop_grace=0.2)]) as sup:
        defaults.configure(supervisor=sup)
        names: dict[str, Any] = {"lm": lm}
        try:
            with contextlib.redirect_stdout(printed):
                for block in blocks:
                    exec(compile(block, str(PAGE), "exec"), names)
        finally:
            defaults.stop_default_supervisor()
    lines = printed.getvalue().splitlines()
    assert lines[0] == "**a framework** (2 sources, markdown) python:dspy/0 narrower"
    assert lines[1:4] == ["text of a text of b", "a framework", "broken ValueError failed"]
    assert lines[4].startswith("run_started")
    assert lines[-3].startswith("run_finished")
    assert lines[-2:] == ["Ann", "1 1 2"]
