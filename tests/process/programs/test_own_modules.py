"""Process: a user's own DSPy program runs unchanged, in workers whose pool names none of its modules."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspex
from dspex.errors import EncodeError, InvalidInput, InvalidReturn, RemoteError, UnknownName
from dspex.testing import FakeLM
from tests.support.programs import own_programs
from tests.support.waiting import eventually

OWN = "tests.support.programs.own_programs"
ANSWERS = {"query": "capital of France", "reasoning": "r", "answer": "Paris", "verdict": "good"}


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as running:
        yield running


@pytest.fixture
def lm() -> Iterator[FakeLM]:
    with FakeLM(lambda messages: ANSWERS) as fake:
        yield fake


@pytest.fixture
def how(sup: dspex.Supervisor, lm: FakeLM) -> dict[str, Any]:
    return {"supervisor": sup, "lm": lm}


def test_a_named_class_runs_in_two_lines(how: dict[str, Any], lm: FakeLM) -> None:
    """process: with its constructor's arguments; what it keeps on itself it keeps, as in DSPy."""
    qa = dspex.module(f"{OWN}:MultiHop", hops=3, **how)
    out = qa(question="capital?")
    assert (out.answer, out.queries, len(lm.requests)) == ("Paris", ["capital of France"] * 3, 4)
    assert out.usage and out.route.startswith("python:dspy/")
    assert qa(question="again?", extra="!").calls == out.calls + 1
    assert asyncio.run(qa.acall(question="and again?")).calls == out.calls + 2


def test_isolated_calls_see_nothing_of_each_other(how: dict[str, Any]) -> None:
    """process"""
    qa = dspex.module(f"{OWN}:MultiHop", isolate=True, **how)
    assert [qa(question="q").calls for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("what", [own_programs.MultiHop, own_programs.Nested, own_programs.ready])
def test_classes_and_live_modules_of_an_importable_module(what: Any, how: dict[str, Any]) -> None:
    """process"""
    assert dspex.module(what, **how)(question="capital?").answer == "Paris"


def test_factories_by_what_they_say_by_their_arguments_or_because_they_need_none(how: dict[str, Any]) -> None:
    """process"""
    assert len(dspex.module(f"{OWN}:build", **how)(question="q").queries) == 1
    assert len(dspex.module(own_programs.build, hops=2, **how)(question="q").queries) == 2
    assert len(dspex.module(f"{OWN}:build_unsaid", **how)(question="q").queries) == 1
    assert len(dspex.module(lambda: own_programs.MultiHop(hops=2), **how)(question="q").queries) == 2


def test_plain_functions_run_in_a_worker_with_dspy_configured(how: dict[str, Any]) -> None:
    """process: by name, as objects, awaited; also by way of `dspex.module`."""
    assert dspex.function(f"{OWN}:add", **how)(left=1) == {"sum": 3}
    assert dspex.module(f"{OWN}:add", **how)(left=1, right=1) == {"sum": 2}
    assert dspex.function(own_programs.add_later, **how)(left=1, right=5) == 6
    assert dspex.function(f"{OWN}:ask", **how)(question="capital?").answer == "Paris"
    assert dspex.function(lambda number: number * 2, **how)(number=21) == 42


def test_it_asks_no_language_model_for_what_needs_none(sup: dspex.Supervisor, monkeypatch: Any) -> None:
    """process: nothing is configured, and nothing is missed until it is needed."""
    monkeypatch.delenv("DSPEX_LM", raising=False)
    assert dspex.function(f"{OWN}:add", supervisor=sup)(left=1) == {"sum": 3}
    with pytest.raises(dspex.SettingsError, match="needs an LM"):
        dspex.function(f"{OWN}:ask", supervisor=sup)(question="q")


def test_modules_with_aforward_alone(how: dict[str, Any]) -> None:
    """process: called, awaited and streamed; one that has both runs what DSPy would."""
    qa = dspex.module(f"{OWN}:OnlyAwaited", **how)
    assert qa(question="q").other == "Paris" and asyncio.run(qa.acall(question="q")).other == "Paris"
    assert next(item for item in qa.stream(question="q") if isinstance(item, dspex.Prediction)).answer == "Paris"
    both = dspex.module(f"{OWN}:Both", **how)
    assert (both(), asyncio.run(both.acall())) == ("forward", "aforward")


def test_streams_and_maps(how: dict[str, Any]) -> None:
    """process"""
    qa = dspex.module(f"{OWN}:MultiHop", hops=1, **how)
    *chunks, out = qa.stream(question="q")
    assert list(dict.fromkeys(chunk.field for chunk in chunks)) == ["query", "reasoning", "answer"]
    assert out.answer == "Paris"
    rows = [row.result().answer for row in dspex.map(qa, [{"question": str(number)} for number in range(5)])]
    assert rows == ["Paris"] * 5


@pytest.mark.parametrize("kind", ["none", "text", "number", "dict"])
def test_an_open_module_returns_what_it_returns(kind: str, how: dict[str, Any]) -> None:
    """process: DSPy's own value, of the same types."""
    plain = own_programs.Returning()(kind=kind)
    ours = dspex.module(f"{OWN}:Returning", **how)(kind=kind)
    assert ours == plain and type(ours) is type(plain)


def test_predictions_within_lists_and_tuples(how: dict[str, Any]) -> None:
    """process"""
    returning = dspex.module(f"{OWN}:Returning", **how)
    assert [each.a for each in returning(kind="list")] == [1, 2]
    prediction, score = returning(kind="tuple")
    assert (prediction.a, score) == (1, 0.5)


@pytest.mark.parametrize("kind", ["object", "generator"])
def test_what_cannot_be_sent_is_an_error_that_names_the_module(kind: str, how: dict[str, Any]) -> None:
    """process"""
    with pytest.raises(InvalidReturn, match=f"{OWN}:Returning returned a {kind}"):
        dspex.module(f"{OWN}:Returning", **how)(kind=kind)


@pytest.mark.parametrize("kind", ["none", "text", "tuple"])
def test_with_a_signature_it_must_give_its_outputs(kind: str, how: dict[str, Any]) -> None:
    """process: None too is said as what it is."""
    with pytest.raises(InvalidReturn, match=f"{OWN}:Returning returned a .*signature"):
        dspex.module(f"{OWN}:Returning", signature="kind -> answer", **how)(kind=kind)


def test_a_signature_checks_and_types(how: dict[str, Any], lm: FakeLM) -> None:
    """process: the module's constructor takes none, and is not asked to."""
    typed = dspex.module(f"{OWN}:MultiHop", signature="question -> answer, queries: tuple[str, ...]", **how)
    assert typed(question="q").queries == ("capital of France",) * 2
    with pytest.raises(InvalidInput, match="quesion"):
        typed(quesion="q")
    assert dspex.predictor(f"{OWN}:MultiHop", "question -> answer", hops=1, **how)(question="q").answer == "Paris"


def test_its_inputs_are_asked_of_a_worker_once(how: dict[str, Any], lm: FakeLM) -> None:
    """process: and cost no request."""
    qa = dspex.module(f"{OWN}:MultiHop", **how)
    assert qa.inputs == ("question", "extra") and qa.described["required"] == ["question"]
    assert qa.described["predictors"] == ["generate_query.predict", "answer"] and qa.described is qa.described
    assert dspex.module(f"{OWN}:Nested", **how).described["takes_any"] is True
    assert dspex.function(f"{OWN}:add", **how).inputs == ("left", "right")
    assert not lm.requests


def test_wrong_inputs_cost_nothing(how: dict[str, Any], lm: FakeLM) -> None:
    """process: refused by name before the module runs."""
    qa = dspex.module(f"{OWN}:MultiHop", **how)
    with pytest.raises(InvalidInput, match="did you mean 'question'"):
        qa(quesion="q")
    with pytest.raises(InvalidInput, match="missing a required argument: 'question'"):
        qa(extra="q")
    assert not lm.requests


def test_names_and_arguments_that_do_not_exist(how: dict[str, Any]) -> None:
    """process"""
    with pytest.raises(UnknownName, match="no_such_module"):
        dspex.module("no_such_module:QA", **how)(question="q")
    with pytest.raises(UnknownName, match="MultiHop"):
        dspex.module(f"{OWN}:MultiHopp", **how)(question="q")
    with pytest.raises(UnknownName, match="hops"):
        dspex.module(f"{OWN}:MultiHop", hop=1, **how)(question="q")
    with pytest.raises(InvalidInput, match=r"not a class derived from dspy\.Module"):
        dspex.module("collections:OrderedDict", **how)(question="q")
    with pytest.raises(InvalidInput, match="returned a dict, where a factory"):
        dspex.module(f"{OWN}:add", left=1, **how)(left=1)
    with pytest.raises(RemoteError, match="no index was built") as caught:
        dspex.module(f"{OWN}:Broken", **how)()
    assert "own_programs.py" in caught.value.traceback


def test_tools_run_in_this_process(how: dict[str, Any]) -> None:
    """process: given to the constructor; a module without room for them says so."""
    seen: list[str] = []

    def search(query: str) -> str:
        """Search."""
        seen.append(query)
        return f"found {query}"

    out = dspex.module(f"{OWN}:Searching", tools=[search], **how)(query="x")
    assert out.found == ["found x"] and seen == ["x"]
    with pytest.raises(InvalidInput, match="takes no tools"):
        dspex.module(f"{OWN}:MultiHop", tools=[search], **how)(question="q")


def test_arguments_that_are_no_plain_data_are_sent_by_value(how: dict[str, Any]) -> None:
    """process: they live in the worker; what cannot be pickled is refused at once."""
    factor = 3
    out = dspex.module(f"{OWN}:Searching", look=lambda query: query * factor, **how)(query="x")
    assert out.looked == "xxx"
    with pytest.raises(EncodeError, match="the arguments of"):
        dspex.module(f"{OWN}:Searching", look=threading.Lock().acquire, **how)


class Says(dspy.Module):
    def __init__(self, words: Any) -> None:
        super().__init__()
        self.words = words

    def forward(self) -> Any:
        return self.words


@pytest.mark.parametrize("words", ["half \ud83d", {"a": [2**70]}, frozenset({1}), {1: b"x"}], ids=repr)
def test_arguments_that_no_message_holds_are_sent_by_value_too(how: dict[str, Any], words: Any) -> None:
    """process: and come back as what they are."""
    said = dspex.module(Says, words=words, **how)()
    assert said == words and type(said) is type(words)


def test_text_that_is_no_unicode_crosses_as_it_is(how: dict[str, Any]) -> None:
    """process: half a surrogate pair, in the constructor's arguments, in inputs and in what comes back."""
    half = "a\ud800b"
    same = dspex.module(lambda word: own_programs.Saying(word), word=half, **how)
    out = same(given=half, deep=[{half: half}])
    assert (out.word, out.given, out.deep) == (half, half, [{half: half}])


def test_a_live_module_goes_as_it_is_now_with_its_demos(how: dict[str, Any], lm: FakeLM) -> None:
    """process: and what it is given later stays here."""
    program = own_programs.MultiHop(hops=1)
    program.answer.demos = [dspy.Example(context=[], question="demo question", answer="demo answer")]
    qa = dspex.module(program, **how)
    program.hops = 5
    assert len(qa(question="q").queries) == 1
    assert "demo question" in str(lm.requests[-1].messages)


def test_two_versions_of_a_class_that_no_module_holds(how: dict[str, Any]) -> None:
    """process: as an edited cell makes them; each program keeps its own."""

    def cell(answer: str) -> type[dspy.Module]:
        class Cell(dspy.Module):
            def forward(self) -> str:
                return answer

        return Cell

    old, new = dspex.module(cell("old"), **how), dspex.module(cell("new"), **how)
    assert (old(), new(), old()) == ("old", "new", "old")


def test_a_module_on_a_path_that_was_added_later(
    how: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """process: the workers started long before; its own imports are found as well."""
    (tmp_path / "late_helper.py").write_text("WORD = 'late'\n")
    (tmp_path / "late_program.py").write_text(
        "import dspy\n\nclass Late(dspy.Module):\n    def forward(self):\n"
        "        import late_helper\n        return late_helper.WORD\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert dspex.module("late_program:Late", **how)() == "late"
    assert "late_program" not in sys.modules


def test_an_awaited_module_streams_the_fields_of_answers_that_arrive_at_once(how: dict[str, Any]) -> None:
    """process: each answer's text is its own."""
    chunks = [
        item for item in dspex.module(f"{OWN}:OnlyAwaited", **how).stream(question="q") if isinstance(item, dspex.Chunk)
    ]
    assert {chunk.field for chunk in chunks} == {"answer"} and sum(len(chunk.text) for chunk in chunks) == 2 * len(
        "Paris"
    )


def test_cancelling_reaches_a_module_that_awaits(how: dict[str, Any]) -> None:
    """process: whatever it awaits; its worker lives on."""
    lasting = dspex.function(f"{OWN}:await_long", **how)

    async def give_up() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(lasting.acall(seconds=600), 0.3)

    pid = dspex.function(os.getpid, **how)()
    asyncio.run(give_up())
    with pytest.raises(dspex.CallTimeout):
        lasting.using(timeout=0.3)(seconds=600)
    eventually(lambda: how["supervisor"].stats()["dspy"]["in_flight"] == 0, what="nothing runs")
    assert dspex.function(os.getpid, **how)() == pid


def test_rows_of_dspys_executors_are_accounted(how: dict[str, Any], lm: FakeLM) -> None:
    """process: `dspy.Parallel` and `batch` add to the usage of the call; what the cache answered adds nothing."""
    rows = dspex.module(f"{OWN}:InRowsOfOne", **how)
    questions = [str(number) for number in range(6)]
    out = rows(questions=questions)
    used = out.usage["openai/fake"]
    assert out.answers == ["Paris"] * 12
    one = dspex.predictor("predict", "question -> answer", implementation="python", **how)(question="another")
    paid = len(lm.requests) - 1  # rows that run at the same time may both ask
    assert used["total_tokens"] == pytest.approx(paid * one.usage["openai/fake"]["total_tokens"], rel=0.05)
    assert [each.answer for each in dspex.module(f"{OWN}:InRows", **how)(questions=["7"])] == ["Paris"] * 2


def test_a_constructor_may_ask_already(how: dict[str, Any], lm: FakeLM) -> None:
    """process: once for the shared instance."""
    asking = dspex.module(f"{OWN}:AskingFirst", **how)
    assert (asking(), asking(), len(lm.requests)) == ("Paris", "Paris", 1)


def test_what_asyncify_and_streamify_make(how: dict[str, Any]) -> None:
    """process: inside a module, and as the program itself."""
    assert dspex.module(f"{OWN}:Streaming", **how)(question="q").answer == "Paris"
    assert dspex.module(dspy.asyncify(own_programs.MultiHop(hops=1)), **how)(question="q").answer == "Paris"
    streamed = dspex.module(dspy.streamify(own_programs.MultiHop(hops=1)), **how)
    assert streamed(question="q").answer == "Paris"
    assert asyncio.run(streamed.acall(question="q")).answer == "Paris"


def test_a_constructor_whose_model_refuses_raises_the_models_error(sup: dspex.Supervisor) -> None:
    """process: as its class; what else a constructor raises names the module."""
    with FakeLM(lambda messages: {"answer": "x"}) as lm:
        wrong = dspex.LM("openai/fake", api_base=lm.lm.api_base, api_key="sk-another")
        with pytest.raises(dspex.LMAuthError):
            dspex.module(f"{OWN}:AskingFirst", isolate=True, supervisor=sup, lm=wrong)()
        with pytest.raises(RemoteError, match=r"Broken could not be made: .*no index") as caught:
            dspex.module(f"{OWN}:Broken", supervisor=sup, lm=lm)()
        assert caught.value.type == "LookupError" and "own_programs.py" in caught.value.traceback


def test_a_stream_without_a_prediction_is_an_error(how: dict[str, Any]) -> None:
    """process"""

    async def numbers() -> Any:
        yield 1

    with pytest.raises(InvalidReturn, match="numbers"):
        dspex.function(numbers, **how)()
