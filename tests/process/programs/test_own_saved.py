"""Process: a user's own module is optimized, saved and loaded, by DSPex and by DSPy; a file has nothing imported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspex
from dspex.errors import InvalidInput, SettingsError, UnknownName
from dspex.testing import FakeLM
from tests.support.programs import own_programs

OWN = "tests.support.programs.own_programs"
ROWS = [{"question": f"capital {number}?", "answer": "Paris"} for number in range(4)]


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1), dspex.PoolConfig("mipro", size=1)]) as running:
        yield running


@pytest.fixture
def lm() -> Iterator[FakeLM]:
    with FakeLM(lambda messages: {"query": "q", "reasoning": "r", "answer": "Paris", "verdict": "v"}) as fake:
        yield fake


@pytest.fixture
def how(sup: dspex.Supervisor, lm: FakeLM) -> dict[str, Any]:
    return {"supervisor": sup, "lm": lm}


def _optimized(program: dspex.Program) -> Any:
    return dspex.optimize(
        program, ROWS, optimizer="bootstrap", metric="exact_match", inputs=["question"], max_bootstrapped_demos=2
    )


class Held(dspy.Module):
    def __init__(self, words: Any = None) -> None:
        super().__init__()
        self.draft = dspy.Predict("question -> query")
        self.answer = dspy.ChainOfThought("question, query -> answer")

    def forward(self, question: str) -> Any:
        return self.answer(question=question, query=self.draft(question=question).query)


@pytest.mark.parametrize("what", [f"{OWN}:MultiHop", own_programs.MultiHop, own_programs.Nested, Held])
def test_an_optimized_module_is_saved_and_loaded(what: Any, how: dict[str, Any], lm: FakeLM, tmp_path: Path) -> None:
    """process: the state of all its predictors; the loaded one asks what the optimized one asks, in DSPy too."""

    def asked_by(call: Any, **inputs: Any) -> list[Any]:
        before = len(lm.requests)
        call(**inputs)
        return [request.messages for request in lm.requests[before:]]

    program = dspex.module(what, **how)
    best = _optimized(program)
    assert len(best.program.state) >= 2
    asked = asked_by(best, question="capital of x?")
    best.save(tmp_path / "program.json")
    loaded = dspex.load(tmp_path / "program.json", program=program).using(rollout_id=1)
    assert asked_by(loaded, question="capital of x?") == asked and "capital 1?" in str(asked)
    plain = own_programs.MultiHop() if isinstance(what, str) else what()
    plain.load(str(tmp_path / "program.json"))
    with dspy.context(lm=dspy.LM("openai/fake", api_base=lm.lm.api_base, api_key=lm.lm.api_key, cache=False)):
        assert asked_by(plain, question="capital of x?") == asked


def test_examples_of_a_module_that_takes_any_input_say_what_goes_in(how: dict[str, Any], lm: FakeLM) -> None:
    """process: refused before anything is paid."""
    nested = dspex.module(own_programs.Nested, **how)
    for job in (dspex.optimize, dspex.evaluate):
        with pytest.raises(InvalidInput, match="inputs="):
            job(nested, ROWS, metric="exact_match")
    assert not lm.requests


def test_what_dspy_saved_is_loaded(how: dict[str, Any], lm: FakeLM, tmp_path: Path) -> None:
    """process: a file of DSPy's own, of a module with demos in two predictors."""
    plain = own_programs.MultiHop(hops=1)
    plain.answer.demos = [dspy.Example(context=[], question="from a file", answer="yes")]
    plain.save(str(tmp_path / "plain.json"))
    dspex.load(tmp_path / "plain.json", program=dspex.module(f"{OWN}:MultiHop", hops=1, **how))(question="q")
    assert "from a file" in str(lm.requests[-1].messages)


def test_the_state_of_another_module_is_refused_before_anything_is_asked(
    how: dict[str, Any], lm: FakeLM, tmp_path: Path
) -> None:
    """process"""
    own_programs.Nested().save(str(tmp_path / "nested.json"))
    other = dspex.load(tmp_path / "nested.json", program=dspex.module(f"{OWN}:MultiHop", **how))
    with pytest.raises(InvalidInput, match="another program"):
        other(question="q")
    assert not lm.requests


def test_a_file_has_nothing_imported_that_the_loader_did_not_name(
    how: dict[str, Any], lm: FakeLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """process: neither when it is loaded, nor by its first call, in whatever supervisor; with `program=` it is."""
    monkeypatch.syspath_prepend(str(tmp_path))
    mark = tmp_path / "imported"
    (tmp_path / "planted_program.py").write_text(
        f"import dspy, pathlib\npathlib.Path({str(mark)!r}).touch()\n\n"
        "class QA(dspy.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.answer = dspy.Predict('question -> answer')\n"
        "    def forward(self, question):\n        return self.answer(question=question)\n"
    )
    part = dspy.Predict("question -> answer").dump_state()
    own = {"format": 1, "module": "planted_program:QA", "signature": None}
    path = tmp_path / "planted.json"
    path.write_text(json.dumps({"answer": part, "metadata": {"dspex": own}}))
    advice = r"planted_program:QA.*dspex\.load\(path, program=dspex\.module\('planted_program:QA'\)\)"
    with pytest.raises(UnknownName, match=advice):
        dspex.load(path, **how)
    loaded = dspex.load(path)
    calls: list[Any] = [
        lambda program: program(question="q"),
        lambda program: program.program.inputs,
        lambda program: list(program.program.stream(question="q")),
        lambda program: dspex.pipeline([dspex.python(program)]).run({"question": "q"}, supervisor=how["supervisor"]),
        lambda program: dspex.best_of_n(program, reward_fn=lambda i, p: 1.0, N=1)(question="q"),
        lambda program: _optimized(program.program),
    ]
    for call in calls:
        with pytest.raises(dspex.DspexError, match=advice):
            call(loaded.using(**how))
    assert not mark.exists() and not lm.requests
    trusted = dspex.load(path, program=dspex.module("planted_program:QA", **how))
    assert trusted(question="q").answer == "Paris" and mark.exists()


def test_a_module_of_the_imports_is_loaded_by_its_name(lm: FakeLM, tmp_path: Path) -> None:
    """process: as ever."""
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1, imports=[OWN])]) as running:
        program = dspex.module(f"{OWN}:MultiHop", hops=1, supervisor=running, lm=lm)
        saved = dspex.Optimized(program, None, None)
        saved.save(tmp_path / "program.json")
        assert dspex.load(tmp_path / "program.json", supervisor=running, lm=lm)(question="q").answer == "Paris"


def test_what_a_file_cannot_hold_is_asked_for(how: dict[str, Any], tmp_path: Path) -> None:
    """process: classes and arguments that were sent by value."""

    class Cell(Held):
        pass

    path = tmp_path / "cell.json"
    dspex.Optimized(dspex.module(Cell, **how), None, None).save(path)
    with pytest.raises(InvalidInput, match=r"program=dspex\.module\(.*Cell\)"):
        dspex.load(path, **how)
    assert dspex.load(path, program=dspex.module(Cell, **how))(question="q").answer == "Paris"
    dspex.Optimized(dspex.module(f"{OWN}:Searching", look=lambda query: query, **how), None, None).save(path)
    with pytest.raises(InvalidInput, match="look"):
        dspex.load(path, **how)


def test_demos_given_after_loading_are_saved(how: dict[str, Any], lm: FakeLM, tmp_path: Path) -> None:
    """process: what is served is what is written; also where there was no state yet, and of DSPy's types."""
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    program = dspex.predictor("chain_of_thought", "question -> answer", **how)
    _optimized(program).save(first)
    demos = [{"question": "mine", "reasoning": "so", "answer": "yes"}]
    dspex.load(first, program=program).using(demos=demos).save(second)
    for loaded in (dspex.load(second, **how), dspex.load(second, program=program)):
        loaded.using(rollout_id=3)(question="new?")
        text = str(lm.requests[-1].messages)
        assert "mine" in text and "capital 0?" not in text
    plain = dspy.ChainOfThought("question -> answer")
    plain.load(str(second))
    assert [demo["question"] for demo in plain.predict.demos] == ["mine"]
    dspex.Optimized(program.using(demos=demos), None, None).save(second)
    plain.load(str(second))
    assert [demo["question"] for demo in plain.predict.demos] == ["mine"]


def test_an_agent_is_loaded_with_its_tools(how: dict[str, Any], lm: FakeLM, tmp_path: Path) -> None:
    """process: its prompt names them; without them it is refused, with the names, before anything is asked."""

    def search(query: str) -> str:
        """Search."""
        return query

    def look_up(name: str) -> str:
        """Look up."""
        return name

    path = tmp_path / "agent.json"
    agent = dspex.react("question -> answer", tools=[search, look_up], **how)
    dspex.Optimized(agent, None, None).save(path)
    for missing, given in (("search, look_up", {}), ("look_up", {"tools": [search]})):
        with pytest.raises(InvalidInput, match=missing):
            dspex.load(path, **given, **how)
    with pytest.raises(InvalidInput, match="search"):
        dspex.load(path, program=dspex.react("question -> answer", tools=[look_up], **how))
    loaded = dspex.load(path, tools=[search, look_up], **how)
    assert [tool.name for tool in loaded.program.tools] == ["search", "look_up"]
    assert dspex.load(path, program=agent).program.tools == agent.tools
    assert not lm.requests


def test_any_program_is_saved_as_it_is(how: dict[str, Any], lm: FakeLM, tmp_path: Path) -> None:
    """process: without an optimization; by this and by DSPy it is loaded and asks the same, and nothing is paid."""

    def asked_by(call: Any, **inputs: Any) -> list[Any]:
        before = len(lm.requests)
        call(**inputs)
        return [request.messages for request in lm.requests[before:]]

    def search(query: str) -> str:
        """Search."""
        return query

    demos = [{"question": "from the demos?", "answer": "yes"}]
    module = dspex.module(own_programs.MultiHop, hops=1, **how)
    saved = {
        "predict": (dspex.predictor("predict", "question -> answer", demos=demos, **how), {}),
        "module": (module, {"program": module}),
        "agent": (dspex.react("question -> answer", tools=[search], **how), {"tools": [search]}),
    }
    for name, (program, _) in saved.items():
        program.save(tmp_path / f"{name}.json")
    assert not lm.requests
    for name, (program, given) in saved.items():
        loaded = dspex.load(tmp_path / f"{name}.json", **given, **how)
        if name != "agent":
            assert asked_by(loaded.using(rollout_id=1), question="q") == asked_by(program, question="q") != []
        assert loaded.score is None and loaded.program.tools == program.tools
    assert "from the demos?" in str(lm.requests[0].messages)
    for plain, name in ((dspy.Predict("question -> answer"), "predict"), (own_programs.MultiHop(hops=1), "module")):
        plain.load(str(tmp_path / f"{name}.json"))
        with dspy.context(lm=dspy.LM("openai/fake", api_base=lm.lm.api_base, api_key=lm.lm.api_key, cache=False)):
            assert asked_by(plain, question="other") == asked_by(saved[name][0], question="other")
    with pytest.raises(SettingsError, match="save the program that it asks"):
        dspex.best_of_n("question -> answer", reward_fn=lambda inputs, out: 1.0, N=2, **how).save(tmp_path / "no.json")
    assert not (tmp_path / "no.json").exists()
