"""Contract: a fake model that answers by field or by signature, for DSPy's own adapters and for both routes."""

from __future__ import annotations

import datetime
import enum
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pydantic
import pytest

import dspex
from dspex.errors import LMInvalidRequestError
from dspex.testing import FakeLM, FakeReply
from dspex.testing.script import FakeRequest
from tests.support.paths import ROOT

Fake = Callable[..., FakeLM]
ADAPTERS = ["chat", "json", "xml", "baml"]


class Mood(enum.Enum):
    CALM = "calm"
    ANGRY = "angry"


class Place(pydantic.BaseModel):
    name: str
    tags: list[str]


JUDGED = {
    "mood": Mood.ANGRY,
    "place": Place(name="Bonn <&> Köln", tags=["a", "b"]),
    "day": datetime.date(2024, 2, 29),
    "score": 0.5,
    "sure": True,
}
OUTPUT = {
    "queries": ["rivers", "rivers of France", "Loire"],
    "answer": "The Loire <1000 km & more>.",
    "judged": ["angry", {"name": "Bonn <&> Köln", "tags": ["a", "b"]}, "2024-02-29", 0.5, True],
}


def by_dspy(lm: FakeLM, adapters: list[str], *, streamed: bool = False) -> list[Any]:
    settings = {"model": lm.model, "api_base": lm.api_base, "api_key": lm.api_key}
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.lm.dspy_modules"],
        cwd=ROOT,
        input=json.dumps({"lm": settings, "adapters": adapters, "streamed": streamed}),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results: list[Any] = json.loads(done.stdout)
    return results


@pytest.mark.parity
def test_dspys_own_module_of_four_predictors_is_answered_by_field(fake: Fake) -> None:
    """parity: no marker of any adapter is written; typed values come out as they went in."""
    answers = {**JUDGED, "query": OUTPUT["queries"], "done": [False, True], "answer": OUTPUT["answer"]}
    lm = fake(by_field=answers, cycle=True)
    assert by_dspy(lm, ADAPTERS) == [OUTPUT] * len(ADAPTERS)
    assert [request.signature for request in lm.requests[:5]] == [
        "question -> query",
        "question, notes -> reasoning, query, done",
        "question, notes -> reasoning, query, done",
        "question, notes -> answer",
        "answer -> mood, place, day, score, sure",
    ]
    asked = lm.requests_for("answer")
    assert [request.inputs["question"] for request in asked] == ["Which river?"] * len(ADAPTERS)
    assert all("rivers of France" in request.inputs["notes"] for request in asked)


@pytest.mark.parity
def test_dspys_own_module_of_four_predictors_is_answered_by_signature(fake: Fake) -> None:
    """parity: two predictors with an output of one name are told apart by their inputs; streams too."""
    lm = fake(
        by_signature={
            "question -> query": {"query": "rivers"},
            "question, notes: list[str] -> query, done: bool": [
                {"query": "rivers of France", "done": False},
                FakeReply({"query": "Loire", "done": True}, latency=0.01),
            ],
            "-> mood, place, day, score, sure": JUDGED,
        },
        by_field={"answer": lambda request: f"{OUTPUT['answer'] if 'Loire' in request.inputs['notes'] else '?'}"},
        cycle=True,
    )
    for out in by_dspy(lm, ["chat", "json"], streamed=True):
        assert out.pop("streamed").strip('"') == OUTPUT["answer"]  # of JSON, DSPy streams the quotes too
        assert out == OUTPUT
    assert all(request.body["stream"] for request in lm.requests_for("answer"))
    assert len(lm.requests_for("question, notes -> query, done")) == 4
    assert len(lm.requests_for("query")) == 6


@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_a_native_program_reads_the_same_values(fake: Fake, adapter: str) -> None:
    """contract: in this process, typed, and streamed."""
    types = {"Mood": Mood, "Place": Place}
    signature = dspex.signature("question -> mood: Mood, place: Place, score: float, sure: bool", custom_types=types)
    program = dspex.predictor("predict", signature, lm=fake(by_field=JUDGED), adapter=adapter)
    out = program(question="q")
    assert (out.mood, out.place, out.score, out.sure) == (Mood.ANGRY, JUDGED["place"], 0.5, True)
    text = dspex.predictor("predict", "question -> answer", lm=fake(by_field={"answer": ["a b c"]}), adapter=adapter)
    *chunks, last = text.stream(question="q")
    assert last.answer == "a b c"
    assert len(chunks) > 1


def test_a_list_is_played_in_order_and_its_end_is_said(fake: Fake) -> None:
    """contract: for each field and signature by itself; a value that is a list stands in a list."""
    lm = fake(by_field={"tags": [["a", "b"]], "answer": ["one", "two"]})
    assert dspex.predict("question -> tags: list[str]", {"question": "q"}, lm=lm).tags == ["a", "b"]
    assert dspex.predict("question -> answer", {"question": "q"}, lm=lm).answer == "one"
    with pytest.raises(LMInvalidRequestError) as refused:
        dspex.predict("question -> tags: list[str]", {"question": "q"}, lm=lm)
    assert "1 answer(s) for the field 'tags' and is asked for number 2" in refused.value.provider_message


def test_a_text_is_the_value_of_a_predictors_only_output(fake: Fake) -> None:
    """contract: a reply that is to be no more than a text is a FakeReply."""
    lm = fake(by_signature={"question -> answer": ["one", FakeReply("free text")], "question -> a, b": "x"}, cycle=True)
    assert dspex.chain_of_thought("question -> answer", lm=lm)(question="q").answer == "one"
    with pytest.raises(dspex.AdapterParseError):
        dspex.predict("question -> answer", {"question": "q"}, lm=fake(by_signature={"-> answer": FakeReply("x")}))
    with pytest.raises(LMInvalidRequestError, match="text 'x' for several fields: give a dict; the request is of"):
        dspex.predict("question -> a, b", {"question": "q"}, lm=lm)


def test_what_is_not_scripted_is_said_by_name(fake: Fake) -> None:
    """contract: what is asked for, and what there is; a script by order may stand behind."""
    lm = fake(by_field={"query": "x"}, by_signature={"question -> title": "y"})
    with pytest.raises(LMInvalidRequestError) as refused:
        dspex.predict("question -> answer", {"question": "q"}, lm=lm)
    assert "fields 'query'; the request is of 'question -> answer'" in refused.value.provider_message
    with pytest.raises(LMInvalidRequestError) as refused:
        dspex.predict("q -> query, answer", {"q": "q"}, lm=lm)
    assert "no answer for 'answer'; the request is of 'q -> query, answer'" in refused.value.provider_message
    behind = fake([{"answer": "by order"}], by_field={"query": "x"})
    assert dspex.predict("question -> answer", {"question": "q"}, lm=behind).answer == "by order"
    assert dspex.predict("question -> query", {"question": "q"}, lm=behind).query == "x"


def test_a_script_that_cannot_be_is_refused_when_it_is_made() -> None:
    """contract: before a test has asked anything."""
    with pytest.raises(TypeError, match="holds a FakeReply, which answers a whole request: use by_signature"):
        FakeLM(by_field={"answer": [FakeReply(status=429)]})
    with pytest.raises(ValueError, match="'query' is no signature"):
        FakeLM(by_signature={"query": "x"})
    with pytest.raises(TypeError, match="by_field is a dict"):
        FakeLM(by_field=["x"])  # type: ignore[arg-type]
    with FakeLM("x") as lm, pytest.raises(ValueError, match="5 is no signature"):
        lm.requests_for(5)


def test_an_answer_may_be_a_function_anywhere(fake: Fake) -> None:
    """contract: of the messages in answers=, of the request in the two others; its failure reaches the test."""
    listed = fake([lambda messages: {"answer": messages[-1]["role"]}, {"answer": "two"}])
    asked = [dspex.predict("question -> answer", {"question": "q"}, lm=listed).answer for _ in range(2)]
    assert asked == ["user", "two"]

    def busy_once(request: FakeRequest) -> Any:
        return FakeReply(status=429, headers={"retry-after": "0"}) if len(lm.requests) == 1 else request.inputs

    lm = fake(by_signature={"answer -> answer_again": busy_once}, retries=1)
    signed = fake(by_signature={dspex.signature("question -> answer"): lambda request: {"answer": request.signature}})
    assert dspex.predict("question -> answer", {"question": "q"}, lm=signed).answer == "question -> answer"
    with pytest.raises(LMInvalidRequestError, match="FakeLM's function raised KeyError"):
        broken = fake(by_field={"answer": lambda request: request.inputs["other"]})
        dspex.predict("question -> answer", {"question": "q"}, lm=broken)


def test_inputs_are_read_as_they_were_given(fake: Fake) -> None:
    """contract: several lines, markers of other fields inside, few-shot examples before it."""
    lm = fake(by_field={"answer": "a"})
    program = dspex.predictor("predict", "question, context -> answer", lm=lm)
    demos = [{"question": "old", "context": "old", "answer": "old"}]
    given = {"question": "Respond with `x`?\n\nsecond line", "context": "[[ ## other ## ]]\nnot a field"}
    assert program.using(demos=demos)(**given).answer == "a"
    assert lm.requests[0].inputs["question"] == given["question"]
    assert lm.requests[0].input_names == ["question", "context"]


def test_an_lm_of_anthropics_is_answered_alike(fake: Fake) -> None:
    """contract: whose system prompt stands beside the messages."""
    lm = fake(by_signature={"question -> answer": {"answer": "Paris"}}, model="anthropic/claude-sonnet-4-5")
    assert dspex.chain_of_thought("question -> answer", lm=lm)(question="q").answer == "Paris"
    assert lm.requests[0].signature == "question -> reasoning, answer"
