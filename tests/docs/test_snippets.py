"""Process: every Python block of the user's pages runs as pasted, alone; every `dspex` command line can be parsed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dspex.testing import FakeLM
from tests.support.command_words import read_words
from tests.support.docs import pages, scripted_model
from tests.support.docs.pages import Block
from tests.support.docs.reader import Reader, left_in

pytestmark = pytest.mark.timeout(900)  # the first test of a page waits for all of it, and for the page before

PYTHON = [block for page in pages.user_pages() for block in pages.runnable(page)]
COMMANDS = [
    block
    for page in pages.user_pages()
    for block in pages.blocks(page)
    if block.language == "bash" and "dspex " in block.text.replace("install dspex", "")
]
STARTS = [block for block in COMMANDS if block.text.startswith("dspex start")]


@pytest.fixture(scope="module")
def model() -> Iterator[FakeLM]:
    """The language model of all pages."""
    with FakeLM(scripted_model.answer) as lm:
        yield lm


@pytest.fixture(scope="module")
def reader(model: FakeLM, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Reader]:
    """The reader of all pages; it begins with those of the tests that are to run."""
    reader = Reader(model, tmp_path_factory.mktemp("reader"))
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.originalname == test_a_python_block_runs_as_pasted.__name__:
            reader.begin(item.callspec.params["block"].page)
    yield reader
    reader.close()


@pytest.mark.parametrize("block", PYTHON, ids=[block.id for block in PYTHON])
def test_a_python_block_runs_as_pasted(reader: Reader, block: Block) -> None:
    """process: and prints what the page says, where it says so."""
    outcome = reader.outcome(block)
    assert outcome.error == ""
    if block.output is not None:
        assert outcome.printed == block.output


@pytest.mark.parametrize("page", sorted({block.page for block in PYTHON}))
def test_a_page_leaves_no_process(reader: Reader, page: str) -> None:
    """process: when its blocks have ended, so have the workers that they started."""
    assert reader.read(page).left == []


@pytest.mark.parametrize("block", COMMANDS, ids=[block.id for block in COMMANDS])
def test_the_command_lines_of_a_block_can_be_parsed(block: Block) -> None:
    """contract: by the parser that would read them."""
    for words in command_lines(block):
        parse(words)


@pytest.mark.parametrize("block", STARTS, ids=[block.id for block in STARTS])
def test_the_command_lines_that_begin_with_a_start_run(model: FakeLM, tmp_path: Path, block: Block) -> None:
    """process: one after the other, from `dspex start` to `dspex stop`, on the settings that the page shows."""
    reader, lines = Reader(model, tmp_path), command_lines(block)
    assert (lines[0][0], lines[-1]) == ("start", ["stop"])
    for words in lines:
        reader.dspex(block.page, *words)
    assert left_in(reader.place(block.page)) == []


def test_the_pages_show_what_this_file_runs() -> None:
    """contract: blocks, command lines and outputs are found at all, on most pages."""
    assert len(PYTHON) > 80
    assert len({block.page for block in PYTHON}) > 15
    assert sum(block.output is not None for block in PYTHON) > 40
    assert len(STARTS) == 2
    assert all(command_lines(block) for block in COMMANDS)


def command_lines(block: Block) -> list[list[str]]:
    """The words after `dspex` on each line of a block that calls it."""
    text = block.text.replace("\\\n", " ")
    lines = re.findall(r"^(?:\w+=\S+ )*dspex (.+?)(?: +#.*| *[|&].*)?$", text, re.MULTILINE)
    return [shlex.split(line) for line in lines]


def parse(words: list[str]) -> None:
    """Parse the words as `dspex` would; `--help` and `--version` end well."""
    try:
        read_words(words)
    except click.exceptions.Exit as end:
        assert end.exit_code == 0, words
