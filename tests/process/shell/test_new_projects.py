"""Process: what `dspex init` and `dspex new` write works as it is written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.process.shell.conftest import Shell


def test_a_new_project_and_a_new_bridge_pass_their_tests(dspex_: Shell, tmp_path: Path) -> None:
    """process: with real workers, in their own folder"""
    assert dspex_("new", "service", "shop", "--folder", str(tmp_path)).code == 0
    assert dspex_("new", "bridge", "words", "--folder", str(tmp_path)).code == 0
    for folder, tests in ((tmp_path / "shop", "4 passed"), (tmp_path, "4 passed")):
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        words += ["test_words_bridge.py"] if folder == tmp_path else []
        environment = dspex_.environment
        done = subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, text=True, timeout=200, check=False
        )
        assert tests in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("words", [["init"], ["new", "bridge", "b"], ["new", "service", "s"]])
def test_nothing_is_written_over_unless_told_to(dspex_: Shell, tmp_path: Path, words: list[str]) -> None:
    """process: 2, and every file is as it was"""
    where = [str(tmp_path / "dspex.toml")] if words == ["init"] else ["--folder", str(tmp_path)]
    assert dspex_(*words, *where).code == 0
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    files[-1].write_text("mine")
    again = dspex_(*words, *where)
    assert again.code == 2 and "--force" in again.err
    assert files[-1].read_text() == "mine"
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == files
    assert dspex_(*words, *where, "--force").code == 0
    assert files[-1].read_text() != "mine"


@pytest.mark.parametrize("name", ["a b", "../x", "1a", "", "a.b"])
def test_a_name_that_is_none_is_refused(dspex_: Shell, tmp_path: Path, name: str) -> None:
    """process: nothing is written"""
    assert dspex_("new", "bridge", "--folder", str(tmp_path), "--", name).code == 2
    assert list(tmp_path.iterdir()) == []
