"""Process: an adapter of a user's own class runs in workers, by its path, as the class, or alive."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspex
from dspex.control import Client, Service
from dspex.errors import InvalidInput, RemoteError, SettingsError, UnknownName
from dspex.testing import FakeLM
from tests.support.programs import own_adapters
from tests.support.service import folder as folder

OWN = "tests.support.programs.own_adapters"
QA = "question -> answer"


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    pools = [dspex.PoolConfig("dspy", size=1), dspex.PoolConfig("mipro", size=1)]
    with dspex.Supervisor(pools=pools) as running:
        yield running


@pytest.fixture
def lm() -> Iterator[FakeLM]:
    with FakeLM(lambda messages: {"answer": "Paris"}) as fake:
        yield fake


@pytest.fixture
def qa(sup: dspex.Supervisor, lm: FakeLM) -> Any:
    return dspex.predictor("predict", QA, supervisor=sup, lm=lm)


def _pleases(lm: FakeLM) -> int:
    return lm.requests[-1].text.count("Please.")


class Local(own_adapters.Polite):
    """Of a test, which workers could import too."""


@pytest.mark.parametrize(
    ("given", "times"),
    [
        (f"{OWN}:Polite", 1),
        (f"{OWN}:made", 4),
        (own_adapters.Polite, 1),
        (own_adapters.Polite(3), 3),
        (own_adapters.made, 4),
        (own_adapters.Polite(2, second={1: ("a", None)}), 2),
        (dspex.adapter(f"{OWN}:Polite", times=5), 5),
        (dspex.adapter(own_adapters.Polite, times=6), 6),
        (dspex.adapter(f"{OWN}:polite", times=7), 7),
        ({"name": f"{OWN}:Polite", "times": 8}, 8),
        (dspex.adapter(f"{OWN}:Polite", second={1, 2}), 1),
    ],
)
def test_it_is_taken_in_every_form(given: Any, times: int, qa: Any, lm: FakeLM) -> None:
    """process"""
    program = qa.using(adapter=given)
    assert str(program.decision).startswith("python, pool 'dspy': an adapter of your own runs in workers only (")
    assert program(question="q").answer == "Paris"
    assert _pleases(lm) == times


def test_a_class_of_a_function_and_a_live_one_are_sent_by_value(qa: Any, lm: FakeLM) -> None:
    """process: as a program's own classes are; the one that is alive is as it was when it was sent."""
    word = "Thanks."

    class Inner(dspy.ChatAdapter):
        def user_message_output_requirements(self, signature: Any) -> str:
            return f"{super().user_message_output_requirements(signature)} {word}"

    alive = Inner()
    for given in (Inner, alive):
        assert qa.using(adapter=given)(question="q").answer == "Paris"
        assert lm.requests[-1].text.rstrip().endswith("Thanks.")


def test_it_words_past_turns_in_its_own_way(sup: dspex.Supervisor, lm: FakeLM) -> None:
    """process: a formatter of conversations that returns messages of its own."""

    class Brief(dspy.ChatAdapter):
        def format_conversation_history(self, signature: Any, name: str, inputs: dict[str, Any]) -> list[Any]:
            return [{"role": "user", "content": f"{len(inputs.pop(name).messages)} turns before"}]

    talk = dspex.predictor("predict", "past: dspy.History, question -> answer", adapter=Brief, supervisor=sup, lm=lm)
    past = dspex.History(messages=[{"question": "1?", "answer": "1"}])
    assert talk(past=past, question="2?").answer == "Paris"
    _, before, now = lm.requests[-1].messages
    assert before == {"role": "user", "content": "1 turns before"}
    assert now["role"] == "user" and "2?" in now["content"] and "past" not in now["content"]


def test_it_serves_every_kind_of_call(qa: Any, lm: FakeLM, sup: dspex.Supervisor) -> None:
    """process: awaited, streamed, rendered, mapped, evaluated, in a user's module, in a block, in all calls."""
    polite = qa.using(adapter=f"{OWN}:Polite")
    assert asyncio.run(polite.acall(question="q")).answer == "Paris" and _pleases(lm) == 1
    parts = list(polite.stream(question="streamed"))
    assert "".join(part.text for part in parts[:-1]) == "Paris" and parts[-1].answer == "Paris" and _pleases(lm) == 1
    assert "Please." in polite.render(question="q")[-1]["content"]
    assert [row.result().answer for row in dspex.map(polite, [{"question": "a"}, {"question": "b"}])] == ["Paris"] * 2
    asked = len(lm.requests)
    found = dspex.evaluate(polite, [{"question": "e", "answer": "Paris"}], "exact_match", supervisor=sup)
    assert found.score == 100 and "Please." in lm.requests[asked].text
    own = dspex.module("tests.support.programs.own_programs:MultiHop", supervisor=sup, lm=lm)
    lm.requests.clear()
    with pytest.raises(dspex.AdapterParseError):  # its predictors have other outputs than this model answers
        own.using(adapter=f"{OWN}:Polite")(question="q")
    assert _pleases(lm) == 0 and "Please." in lm.requests[0].text
    with dspex.context(adapter=own_adapters.Polite(9)):
        assert qa.decision.reason is dspex.Reason.ADAPTER
        assert qa(question="in a block").answer == "Paris" and _pleases(lm) == 9
    assert qa.is_native
    dspex.configure(adapter=own_adapters.Polite(2))
    try:
        assert qa(question="everywhere").answer == "Paris" and _pleases(lm) == 2
        assert qa.using(adapter="chat").is_native
    finally:
        dspex.defaults._defaults.adapter = None


def test_it_serves_an_optimization_and_the_best_program(qa: Any, lm: FakeLM, tmp_path: Path) -> None:
    """process: whose file names it by its path, which only the loader can vouch for."""
    rows = [{"question": f"q{at}", "answer": "Paris"} for at in range(3)]
    best = dspex.optimize(qa.using(adapter=f"{OWN}:Polite"), rows, optimizer="bootstrap", metric="exact_match")
    assert best.score == 100 and all("Please." in request.text for request in lm.requests)
    path = tmp_path / "best.json"
    best.save(path)
    with pytest.raises(UnknownName, match="own_adapters"):
        dspex.load(path, lm=lm, supervisor=qa.supervisor)(question="q")
    again = dspex.load(path, lm=lm, supervisor=qa.supervisor, adapter=f"{OWN}:Polite")
    assert again(question="loaded").answer == "Paris" and _pleases(lm) == 1


def test_a_file_does_not_hold_what_is_alive(qa: Any, tmp_path: Path) -> None:
    """process: load needs it again."""
    rows = [{"question": "q", "answer": "Paris"}]
    alive = own_adapters.Polite(2)
    best = dspex.optimize(qa.using(adapter=alive), rows, optimizer="bootstrap", metric="exact_match")
    path = tmp_path / "best.json"
    best.save(path)
    with pytest.raises(InvalidInput, match=r"Polite.*adapter="):
        dspex.load(path)
    assert dspex.load(path, adapter=alive, lm=qa.lm, supervisor=qa.supervisor)(question="q").answer == "Paris"


def test_a_format_of_its_own(qa: Any, sup: dspex.Supervisor) -> None:
    """process: what its code raises is raised, and an answer is no stream of fields."""
    with FakeLM(["PARIS", "PARIS", "paris"]) as lm:
        shouting = qa.using(lm=lm, adapter=own_adapters.Shouting)
        assert shouting(question="q").answer == "PARIS"
        assert lm.requests[0].text == "SHOUT ['answer'] [('question', 'q')]"
        assert [part.answer for part in shouting.stream(question="q2")] == ["PARIS"]
        with pytest.raises(RemoteError, match="that was no shout"):
            shouting(question="q3")


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ("no.such.module:Polite", UnknownName, "no.such.module"),
        (f"{OWN}:Politer", UnknownName, "Polite"),
        (f"{OWN}:no_adapter", InvalidInput, "gave a str"),
        ({"name": f"{OWN}:Polite", "tims": 2}, RemoteError, "tims"),
        ({"name": f"{OWN}:made", "times": 2}, InvalidInput, "made already"),
    ],
)
def test_what_is_none_is_refused_unpaid(given: Any, error: Any, words: str, qa: Any, lm: FakeLM) -> None:
    """process"""
    with pytest.raises(error, match=words):
        qa.using(adapter=given)(question="q")
    assert not lm.requests


def test_options_that_are_not_the_adapters_are_refused(qa: Any, lm: FakeLM) -> None:
    """process"""
    with pytest.raises(SettingsError, match="give it to the adapter"):
        qa.using(adapter=f"{OWN}:Polite", use_native_function_calling=True)(question="q")
    assert not lm.requests


def test_a_client_names_only_adapters_of_the_imports(lm: FakeLM, folder: Path) -> None:
    """security: and sends no code."""
    pool = dspex.PoolConfig("dspy", size=1, imports=[OWN])
    with dspex.Supervisor(pools=[pool], lm=lm) as running, Service(running), dspex.connect() as client:
        asked = {"spec": {"module": "dspy.Predict", "signature": _wire()}, "inputs": {"question": "q"}}
        run = _runner(client, asked)
        assert run({"name": f"{OWN}:Polite", "arguments": {"times": 2}})["outputs"] == {"answer": "Paris"}
        assert _pleases(lm) == 2
        for adapter in ("os:system", {"name": "tests.support.programs.own_programs:add"}, "subprocess:Popen"):
            with pytest.raises(UnknownName):
                run(adapter)
        with pytest.raises(dspex.DspexError):
            run({"name": f"value:{'a' * 64}"})
        with pytest.raises(dspex.DspexError):
            run({"name": f"{OWN}:Polite", "given": f"value:{'a' * 64}", "arguments": {"times": []}})


def _runner(client: Client, asked: dict[str, Any]) -> Any:
    return lambda adapter: client.call("dspy", "run", {**asked, "adapter": adapter}, lm="default")


def _wire() -> Any:
    from dspex.signatures.wire_form import signature_to_wire

    return signature_to_wire(dspex.signature(QA))
