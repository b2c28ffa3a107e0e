"""Runs a page's Python blocks, each alone: a fresh namespace, a fresh default supervisor, a fresh cache.

    python -m tests.support.docs.run_page PAGE REPORT

The working folder is the page's: files that the page shows are in it already. REPORT gets a line of JSON per block.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import json
import runpy
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from dspex import defaults
from tests.support.docs.pages import Block, runnable


def main(page: str, report: str) -> None:
    """Run every block and report each as it ends."""
    sys.path.insert(0, str(Path.cwd()))
    with Path(report).open("a", encoding="utf-8") as lines:
        for block in runnable(page):
            error, printed = outcome(block)
            lines.write(json.dumps({"number": block.number, "error": error, "printed": printed}) + "\n")
            lines.flush()


def outcome(block: Block) -> tuple[str, str]:
    """The traceback of the block, or "", and what it printed."""
    printed, before = io.StringIO(), set(sys.modules)
    try:
        with contextlib.redirect_stdout(printed), fresh_defaults():
            run(block)
    except BaseException:  # whatever a snippet raises is its failure, and the next one runs
        return traceback.format_exc(), printed.getvalue()
    finally:
        forget(before)
    return "", printed.getvalue()


def run(block: Block) -> None:
    """Run one block as its reader would."""
    if block.title.startswith("test_"):
        path = Path(block.title)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
    elif block.is_cell:
        asyncio.run(cell(block))
    else:
        path = Path(block.title if block.is_file else f"block_{block.number}.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
        runpy.run_path(str(path), run_name="__main__")


async def cell(block: Block) -> None:
    """Run a notebook's cell as a kernel does: inside its loop, with `await` at the top."""
    code = compile(block.text, block.id, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    made = eval(code, {"__name__": "__main__"})
    if inspect.iscoroutine(made):
        await made


@contextlib.contextmanager
def fresh_defaults() -> Iterator[None]:
    """Give the block a process-wide state of its own, and stop what it started."""
    defaults._defaults = defaults.Defaults()
    try:
        yield
    finally:
        defaults.stop_default_supervisor()


def forget(before: set[str]) -> None:
    """Drop the page's own modules, so that the next block imports them afresh."""
    here = str(Path.cwd())
    for name in set(sys.modules) - before:
        path = getattr(sys.modules[name], "__file__", None)
        if path is not None and path.startswith(here):
            del sys.modules[name]


if __name__ == "__main__":
    main(*sys.argv[1:])
