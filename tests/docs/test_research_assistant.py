"""Unit and process: the demo: what it decides without a model, and a whole run of it on a scripted one."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dspex.testing import FakeLM
from tests.support.hosts.host import Host
from tests.support.paths import EXAMPLES


def _deciding() -> ModuleType:
    spec = importlib.util.spec_from_file_location("research_assistant_deciding", EXAMPLES / "deciding.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


deciding = _deciding()


def source(title: str) -> dict[str, str]:
    return {"title": title, "text": f"About {title}. More.", "url": f"pip show {title}"}


def lists(*names: str) -> list[list[dict[str, str]]]:
    return [[source(title) for title in each.split()] for each in names]


# -- what to look for ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "refined", "queries"),
    [
        ("Which package should I use to lock a file?", ["lock file python"], ["lock file", "lock file python"]),
        ("What can parse YAML files?", ["parse YAML files", "other"], ["parse YAML files", "other"]),
        ("What is it?", [], ["What is it?"]),  # nothing but words of asking: all of them, then
    ],
)
def test_the_questions_own_words_come_first(question: str, refined: list[str], queries: list[str]) -> None:
    """unit: then the model's first query that is another one."""
    assert deciding.plan(question, refined) == {"topic": queries[0], "queries": queries}


def test_a_query_of_the_model_that_leads_astray_does_not_overrule_the_question() -> None:
    """unit: what both searches have first for the question stays first."""
    colbert = [{"text": f"{title} | About it."} for title in ("yaml", "ini", "toml")]
    found = deciding.gather([lists("yaml ini toml", "ini json csv"), colbert, lists("plist", "ini json")])
    assert [each["title"] for each in found["sources"]][:2] == ["yaml", "ini"]
    assert sum(found["weights"]) == pytest.approx(1.0)
    assert found["passages"][0] == "yaml: About yaml"


# -- which answer wins ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "title"),
    [
        ("pydantic", "pydantic"),
        ("PyDantic: Data validation", "pydantic"),
        ("pydantic_core", "pydantic_core"),
        ("pydantic-settings", "pydantic-settings"),
        ("pydantics", None),
        ("use pydantic", None),
        ("", None),
    ],
)
def test_an_answer_names_the_title_that_it_begins_with(said: str, title: str | None) -> None:
    """unit: never a part of a longer name."""
    assert deciding.named(said, ["pydantic", "pydantic_core", "pydantic-settings"]) == title


@pytest.mark.parametrize(
    ("answers", "winner"),
    [
        (["a", "b", "c"], "a"),  # each passage's answer has its passage's weight
        (["b", "b", "c"], "b"),  # several passages may have the same answer
        (["nonsense", "b", "c"], "b"),  # what names no source has no vote
        (["nonsense", "more", "more"], "more"),  # unless none does: the model is not overruled
    ],
)
def test_the_answer_with_the_most_weight_wins(answers: list[str], winner: str) -> None:
    """unit: the model's answers decide, weighted by their passages."""
    given = [{"answer": answer} for answer in answers]
    assert deciding.vote(given, [0.45, 0.3, 0.25], [source(t) for t in "abc"])["answer"] == winner


# -- a whole run ---------------------------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """The demo on a model that reads a passage rightly once it has seen how: from demonstrations."""

    def answer(messages: list[dict[str, Any]]) -> dict[str, Any]:
        asked = str(messages[-1]["content"])
        passage = re.search(r"\[\[ ## passage ## \]\]\n([\w.-]+):", asked)
        name = passage[1] if passage and len(messages) > 2 else "no idea"
        queries = {"search_queries": ["validate data"], "refined_queries": ["parse JSON"]}
        return {"answer": name, "proposed_instruction": "Name it.", "reasoning": "As asked.", **queries}

    with FakeLM(answer) as lm:
        env = {"DSPEX_LM": lm.model, "OPENAI_BASE_URL": lm.api_base, "OPENAI_API_KEY": lm.api_key}
        host = Host([sys.executable, str(EXAMPLES / "research_assistant.py")], tmp_path / "demo", env=env)
        yield host
        host.close()


def test_the_demo_answers_rightly_and_says_where_each_step_ran(host: Host) -> None:
    """process: optimized in its pool, run natively; no line calls the one the other."""
    host.finish(within=300.0)
    out = host.log()
    line = r"synthesize_answer\[0\] +\d+\.\d+ s +ran native; optimized by miprov2 in mipro/0, in \d+\.\d s"
    assert re.search(line, out), out
    assert re.search(r"\] answers: ran native; optimized by miprov2 in mipro/0", out), "nor the step around it"
    assert re.search(r"search +\d+\.\d+ s +native \+ python:dspy/\d", out)
    assert "Score of the answering step: 0.0 % before its optimization, 100.0 % after." in out
    assert "\nanswer: pydantic\n" in out
    assert "1. **pydantic** (`pip show pydantic`)" in out
    assert not host.files()
