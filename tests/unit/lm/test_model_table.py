"""Contract: the model table: what is taken out of its text is what is in it."""

from __future__ import annotations

import gzip
import json
from importlib import metadata
from typing import Any

import pytest

from dspex.lm import installed_dspy, model_table
from dspex.lm.providers import PROVIDERS


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    path = metadata.distribution("dspy").locate_file("dspy/clients/model_metadata/snapshot.json.gz")
    with gzip.open(str(path)) as file:
        table: dict[str, Any] = json.load(file)
    return table


def test_every_entry_is_found_as_a_parser_finds_it(whole: dict[str, Any]) -> None:
    """contract: an entry of the text equals that of the parsed file, for every key; others are None."""
    table = model_table._table()
    assert isinstance(table, model_table._Table)
    assert len(whole) > 1000
    for key, entry in whole.items():
        assert table.get(key) == entry, key
    for key in ("no such model", "litellm_provider", 'a"b', "max_tokens", ""):
        assert table.get(key) is None


def test_a_table_in_another_layout_gives_the_same_facts(whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """contract: the layout of the file is no part of the answer."""
    names = [(PROVIDERS[p], n) for p in ("openai", "anthropic") for n in ("gpt-4o-mini", "claude-sonnet-4-5", "any")]
    facts = [model_table.model_facts.__wrapped__(*name) for name in names]
    monkeypatch.setattr(model_table, "_table", lambda: whole)
    assert [model_table.model_facts.__wrapped__(*name) for name in names] == facts
    assert facts[0].function_calling and facts[0].price


def test_without_dspy_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """contract: where DSPy is not installed every answer is "unknown"."""
    monkeypatch.setattr(model_table, "dspy_folder", lambda: None)
    assert model_table.model_facts.__wrapped__(PROVIDERS["openai"], "gpt-4o-mini") == model_table.ModelFacts()


def test_the_version_on_the_folder_is_that_of_the_records() -> None:
    """contract: the quick way to DSPy's version and the long way agree."""
    assert installed_dspy.dspy_version() == metadata.version("dspy") == installed_dspy._version_on_record()


def test_a_dspy_that_is_edited_in_place_is_asked_for_in_the_records(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """contract: a folder without its record beside it does not hide the version."""
    monkeypatch.setattr(installed_dspy, "dspy_folder", lambda: tmp_path / "dspy")
    assert installed_dspy.dspy_version() == metadata.version("dspy")
