"""Security: names, folders and settings that were taken at any size, depth or place."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import dspex
from dspex import config
from dspex.cli.call_command import read_arguments
from dspex.cli.data_file import read_data
from dspex.cli.named_values import read_words
from dspex.control import run_folders
from dspex.errors import InvalidInput, SettingsError
from dspex.lm.call_history import HistoryEntry
from dspex.lm.history_text import text_of
from dspex.pools.session import ID_MOST, session_key

DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize("client", ["local", "shared"])
def test_a_sessions_id_is_short(client: str) -> None:
    """unit: the pool keeps ten thousand, and their accounts as many."""
    assert session_key("s" * ID_MOST, client=client)
    with pytest.raises(InvalidInput, match="limit"):
        session_key("s" * (ID_MOST + 1), client=client)


def test_no_way_to_a_session_takes_a_longer_id() -> None:
    """unit: refused before a pool is asked."""
    sup = dspex.Supervisor(pools=[dspex.PoolConfig("f", bridge="faults", size=1)])
    for ask in (sup.call, sup.stream):
        with pytest.raises(InvalidInput, match="limit"):
            ask("f", "echo", {}, session="s" * 10_000_000)
    with pytest.raises(InvalidInput, match="limit"):
        sup.session("f", id="s" * 10_000_000)


@pytest.mark.parametrize(
    "text",
    [
        f"a = {DEEP}", "a = " + "{a=" * 20_000 + "1" + "}" * 20_000, "[" + ".".join(["a"] * 100_000) + "]",
        ".".join(["a"] * 100_000) + " = 1", "x = { " + ".".join(["a"] * 100_000) + " = 1 }",
        "a = '" + "x" * config.FILE_MOST + "'", "[pools.dspy]\nsize = " + "9" * 5000,
    ],
)  # fmt: skip
def test_settings_that_cost_too_much_are_refused(text: str, tmp_path: Path) -> None:
    """unit: SettingsError instead of RecursionError, or of seconds for a dotted key."""
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(SettingsError):
        config.load(path)


def test_settings_that_never_end_are_refused() -> None:
    """unit"""
    with pytest.raises(SettingsError):
        config.load("/dev/zero")


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_deep_rows_are_refused(name: str, tmp_path: Path) -> None:
    """unit"""
    path = tmp_path / name
    path.write_text(f'[{{"a": {DEEP}}}]' if name.endswith("json") else f'{{"a": {DEEP}}}\n')
    with pytest.raises(InvalidInput, match="JSON"):
        read_data(str(path), None)


def test_deep_words_of_a_command_are_refused_or_texts() -> None:
    """unit"""
    for words in ([f'{{"a": {DEEP}}}'], [f"a:={DEEP}"]):
        with pytest.raises(InvalidInput):
            read_words(words)
    with pytest.raises(InvalidInput):
        read_arguments([f'{{"a": {DEEP}}}'])
    assert read_arguments([f"a={DEEP}"]) == {"a": DEEP}
    assert read_words([f"a={DEEP}"])["a"].read(as_text=False) == DEEP


def test_a_history_shows_arguments_that_nest_too_deep_as_they_are() -> None:
    """unit: a model wrote them."""
    calls = [{"function": {"name": "f", "arguments": DEEP}}]
    entry = HistoryEntry(messages=[{"role": "assistant", "content": "", "tool_calls": calls}], text="", model="m")
    assert DEEP in text_of([entry])
    assert json.dumps(calls)


@pytest.mark.parametrize(
    ("mode", "is_taken"), [(0o700, True), (0o755, True), (0o775, False), (0o777, False), (0o1777, True)]
)
def test_a_run_folder_lies_where_nobody_replaces_it(mode: int, is_taken: bool, tmp_path: Path) -> None:
    """unit: whoever writes in its parent could put another folder in its place."""
    parent = tmp_path / "parent"
    parent.mkdir()
    parent.chmod(mode)
    if is_taken:
        assert run_folders.private_directory(parent / "run")
        return
    with pytest.raises(SettingsError, match="DSPEX_RUNTIME_DIR"):
        run_folders.private_directory(parent / "run")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a folder away")
@pytest.mark.parametrize("mode", [0o755, 0o1777])
def test_a_run_folder_in_anothers_folder_is_refused(mode: int, tmp_path: Path) -> None:
    """unit: also in a sticky one, whose owner may do what others may not."""
    parent = tmp_path / "parent"
    (parent / "run").mkdir(parents=True)
    (parent / "run").chmod(0o700)
    parent.chmod(mode)
    os.chown(parent, 65_534, 65_534)
    with pytest.raises(SettingsError, match="65534"):
        run_folders.private_directory(parent / "run")
