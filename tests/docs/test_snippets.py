"""Process: every Python block of the user's pages runs as pasted, alone; every `dspex` command line can be parsed.

A scripted model stands in for real ones. It answers on loopback, where OPENAI_BASE_URL points to.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dspex.cli.arguments import parser
from dspex.testing import FakeLM

from . import pages, scripted_model
from .pages import Block

HIDDEN = "[pools.dspy]\nsize = 1\n"  # where a page declares no pools: one worker starts sooner than four
OPTIMIZERS = "[pools.mipro]\nsize = 1\n"  # on pages that optimize
SERVED = {"reference/cli.md"}  # pages whose reader has a service running
ALL = [block for page in pages.user_pages() for block in pages.blocks(page)]
PYTHON = [block for page in pages.user_pages() for block in pages.runnable(page)]
COMMANDS = [block for block in ALL if block.language == "bash" and "dspex " in block.text]


@pytest.fixture(scope="module")
def model() -> Iterator[FakeLM]:
    """The language model of all pages."""
    with FakeLM(scripted_model.answer) as lm:
        yield lm


class Reader:
    """Somebody who pastes a page's blocks, once: `outcome(block)` tells what became of each."""

    def __init__(self, model: FakeLM, folder: Path) -> None:
        self._model = model
        self._folder = folder
        self._read: dict[str, dict[int, Any]] = {}
        self._left: dict[str, list[str]] = {}

    def left(self, page: str) -> list[str]:
        """The processes that outlive the page's blocks."""
        if page not in self._read:
            self._read[page] = self._paste(page)
        return self._left[page]

    def outcome(self, block: Block) -> dict[str, Any]:
        if block.page not in self._read:
            self._read[block.page] = self._paste(block.page)
        return self._read[block.page].get(block.number) or {"error": self._log(block.page), "printed": ""}

    def _paste(self, page: str) -> dict[int, Any]:
        place = self._place(page)
        place.mkdir(parents=True)
        shown = pages.blocks(page)
        for block in shown:
            if block.is_file:
                (place / block.title).parent.mkdir(parents=True, exist_ok=True)
                (place / block.title).write_text(block.text, encoding="utf-8")
        environment = self._environment(page, shown)
        with (place / "log").open("w") as log, service(page, place, environment):
            subprocess.run(
                [sys.executable, "-m", "tests.docs.run_page", page, str(place / "report")],
                cwd=place, env=environment, stdout=log, stderr=log, timeout=100, check=False,
            )  # fmt: skip
        self._left[page] = left_below(place)
        lines = (place / "report").read_text(encoding="utf-8").splitlines()
        return {row["number"]: row for row in map(json.loads, lines)}

    def _environment(self, page: str, shown: list[Block]) -> dict[str, str]:
        place = self._place(page)
        optimizes = any("optimize(" in block.text for block in pages.runnable(page))
        (place / "hidden.toml").write_text(HIDDEN + OPTIMIZERS * optimizes)
        has_lm = any(block.title == "dspex.toml" and "[lm]" in block.text for block in shown)
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("DSPEX_", "OPENAI_"))},
            "PYTHONPATH": str(pages.ROOT),
            "DSPEX_RUNTIME_DIR": str(place / "run"),
            "DSPEX_CONFIG": str(place / "hidden.toml"),
            "OPENAI_BASE_URL": self._model.api_base or "",
            "OPENAI_API_KEY": self._model.api_key or "",
            **({} if has_lm else {"DSPEX_LM": "openai/gpt-4o-mini"}),
        }

    def _place(self, page: str) -> Path:
        return self._folder / page.removesuffix(".md")

    def _log(self, page: str) -> str:
        return "the block was not reached:\n" + (self._place(page) / "log").read_text(encoding="utf-8")


class service:
    """`dspex start` and `dspex stop` around the pages of those who have a service."""

    def __init__(self, page: str, place: Path, environment: dict[str, str]) -> None:
        self._is_needed = page in SERVED
        self._place, self._environment = place, environment

    def __enter__(self) -> None:
        if self._is_needed:
            self._dspex("start", "--daemon", "--config", "dspex.toml")

    def __exit__(self, *_: object) -> None:
        if self._is_needed:
            self._dspex("stop")

    def _dspex(self, *words: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "dspex.cli", *words],
            cwd=self._place, env=self._environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def left_below(place: Path, patience_s: float = 5.0) -> list[str]:
    """The command lines of processes that work in this folder; they get some seconds to go away."""
    deadline = time.monotonic() + patience_s
    while (found := [process.name() for process in psutil.process_iter() if works_in(process, place)]) and (
        time.monotonic() < deadline
    ):
        threading.Event().wait(0.02)
    return found


def works_in(process: psutil.Process, place: Path) -> bool:
    """Whether that is its working folder."""
    try:
        return process.cwd() == str(place)
    except psutil.Error:  # it has gone, or is somebody else's
        return False


@pytest.fixture(scope="module")
def reader(model: FakeLM, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """The reader of all pages."""
    return Reader(model, tmp_path_factory.mktemp("reader"))


@pytest.mark.parametrize("block", PYTHON, ids=[block.id for block in PYTHON])
def test_a_python_block_runs_as_pasted(reader: Reader, block: Block) -> None:
    """process: and prints what the page says, where it says so."""
    outcome = reader.outcome(block)
    assert outcome["error"] == ""
    if block.output is not None:
        assert outcome["printed"] == block.output


@pytest.mark.parametrize("page", sorted({block.page for block in PYTHON}))
def test_a_page_leaves_no_process(reader: Reader, page: str) -> None:
    """process: when its blocks have ended, so have the workers that they started."""
    assert reader.left(page) == []


@pytest.mark.parametrize("block", COMMANDS, ids=[block.id for block in COMMANDS])
def test_the_command_lines_of_a_block_can_be_parsed(block: Block) -> None:
    """contract: by the parser that would read them."""
    lines = re.findall(r"^(?:\w+=\S+ )*dspex (.+?)(?: +#.*| *[|&].*)?$", block.text.replace("\\\n", " "), re.MULTILINE)
    assert lines
    for line in lines:
        parse(shlex.split(line))


def parse(words: list[str]) -> None:
    """Parse the words as `dspex` would; `--help` and `--version` end well."""
    try:
        parser().parse_args(words)
    except SystemExit as end:
        assert end.code == 0, words


def test_the_pages_show_what_this_file_runs() -> None:
    """contract: blocks are found at all, on most pages, and outputs too."""
    assert len(PYTHON) > 40
    assert len({block.page for block in PYTHON}) > 12
    assert sum(block.output is not None for block in PYTHON) > 15
